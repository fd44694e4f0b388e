"""Small models of scikit-learn, XGBoost and LightGBM, trained on scikit-learn's digits and breast cancer data.

make_sklearn.py FOLDER: also writes the data for the other frameworks, and a store of MLflow.
"""

import sys
from pathlib import Path

import joblib
import lightgbm
import mlflow
import mlflow.sklearn
import numpy as np
import pandas
import skops.io
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC


def digits(folder: Path) -> None:
    features, digit = load_digits(return_X_y=True)
    features = features.astype(np.float32)
    np.savez(folder / "digits.npz", features=features, digit=digit)
    np.savez(folder / "features.npz", features=features[:100])
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(features, digit)
    joblib.dump(pipeline, folder / "logistic.joblib")
    forest = RandomForestClassifier(20, random_state=0).fit(features, digit)
    joblib.dump(forest, folder / "forest.pkl")
    skops.io.dump(pipeline, folder / "logistic.skops")
    joblib.dump(HistGradientBoostingRegressor(max_iter=20).fit(features, digit), folder / "regressor.pkl")
    parity = np.array(["even", "odd"])[digit % 2]
    joblib.dump(LinearSVC(random_state=0).fit(features, parity), folder / "parity.pkl")
    booster = xgboost.XGBClassifier(n_estimators=10, max_depth=3).fit(features, digit)
    booster.save_model(folder / "xgb.json")
    booster.save_model(folder / "xgb.ubj")
    joblib.dump(booster, folder / "xgb.pkl")
    light = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1).fit(features, digit)
    light.booster_.save_model(folder / "light.txt")
    mixed = make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(n_estimators=5, verbose=-1))
    joblib.dump(mixed.fit(features, digit), folder / "mixed.joblib")
    tracked(pipeline, folder)


def cancer(folder: Path) -> None:
    """Two classes by name, and a regression of one feature on the others."""
    features, benign = load_breast_cancer(return_X_y=True)
    features = features.astype(np.float32)
    np.savez(folder / "cancer.npz", features=features[:100])
    named = np.array(["malignant", "benign"])[benign]
    joblib.dump(lightgbm.LGBMClassifier(n_estimators=10, verbose=-1).fit(features, named), folder / "cancer.pkl")
    regressor = xgboost.XGBRegressor(n_estimators=10, max_depth=3).fit(features[:, 1:], features[:, 0])
    regressor.save_model(folder / "radius.json")


def table(folder: Path) -> None:
    """A table with a column of words, as real ones have."""
    data = load_breast_cancer(as_frame=True).frame
    frame = pandas.DataFrame({
        "radius": data["mean radius"].astype("float32"),
        "texture": data["mean texture"].astype("float32"),
        "size": np.where(data["mean area"] > 700, "large", "small"),
    })  # fmt: skip
    columns = ColumnTransformer([
        ("numbers", StandardScaler(), ["radius", "texture"]),
        ("words", OneHotEncoder(handle_unknown="ignore"), ["size"]),
    ])  # fmt: skip
    joblib.dump(make_pipeline(columns, LogisticRegression()).fit(frame, data["target"]), folder / "table.joblib")
    rows = {name: frame[name].to_numpy()[:50].reshape(-1, 1) for name in frame}
    np.savez(
        folder / "table.npz", **{name: part.astype("U") if name == "size" else part for name, part in rows.items()}
    )


def texts(folder: Path) -> None:
    """Real sentences: which data set's description each is from."""
    described = [load_digits().DESCR, load_breast_cancer().DESCR]
    rows = [(line, index) for index, text in enumerate(described) for line in text.splitlines() if len(line) > 40]
    lines, origin = zip(*rows, strict=True)
    joblib.dump(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(lines, origin), folder / "texts.joblib")
    np.savez(folder / "texts.npz", text=np.array(lines).reshape(-1, 1))


def tracked(model: object, folder: Path) -> None:
    """The same model in an MLflow store, once as skops and once as a pickle."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("digits", artifact_location=(folder / "artefacts").as_uri())
    mlflow.set_experiment("digits")
    with mlflow.start_run():
        mlflow.sklearn.log_model(model, name="digits", registered_model_name="digits", pip_requirements=["skops"])
    mlflow.sklearn.save_model(model, folder / "pickled", serialization_format="pickle", pip_requirements=["joblib"])


if __name__ == "__main__":
    for make in (digits, cancer, table, texts):
        make(Path(sys.argv[1]))
