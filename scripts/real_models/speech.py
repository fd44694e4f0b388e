"""silero-vad: is this chunk speech? Samples: successive chunks of one recording, the state carried along.

The speech is espeak-ng's where that is installed; else a voice-like signal (harmonics under formants, with
noise and pauses) stands in for it, and the words on stderr say so.
"""

import io
import shutil
import subprocess
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from folder import Tools, member, save_samples, say

RATE, CHUNK, CONTEXT = 16_000, 512, 64
CHUNKS = 224
TEXT = (
    "The ship leaves at seven in the morning.",
    "Nobody had told the captain about the second crate.",
    "What do you carry, and how much does it weigh?",
)
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240), (530, 1840, 2480))  # Hz
Signal = NDArray[np.float32]


def fill(wheel: Path, folder: Path, tools: Tools) -> None:
    """The model with `input`, `state` and `sr`, and its inputs over seven seconds."""
    model = member(wheel, "silero_vad/data/silero_vad.onnx")
    (folder / "model.onnx").write_bytes(model)
    save_samples(folder, list(_steps(model, recording())))


def recording() -> Signal:
    """Sentences with pauses between them and a little noise all over, 16 kHz, within ±1."""
    random = np.random.default_rng(0)
    spoken = [_espeak(text) for text in TEXT] if shutil.which("espeak-ng") else []
    if not spoken:
        say("silero-vad: espeak-ng is not installed, a voice-like signal stands in for speech")
        spoken = [_voice(random) for _ in TEXT]
    pause = np.zeros(int(0.5 * RATE), np.float32)
    signal = np.concatenate([pause, *(part for sentence in spoken for part in (sentence, pause))])
    return (signal + random.normal(0, 0.002, len(signal))).astype(np.float32)


def _steps(model: bytes, signal: Signal) -> Iterator[Mapping[str, Any]]:
    """What the graph is fed: 64 samples of the chunk before, 512 new ones, and the state it gave last."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options)
    state = np.zeros((2, 1, 128), np.float32)
    signal = np.concatenate([np.zeros(CONTEXT, np.float32), signal])
    for start in range(0, min(CHUNKS * CHUNK, len(signal) - CONTEXT - CHUNK), CHUNK):
        chunk = signal[None, start : start + CONTEXT + CHUNK]
        step = {"input": chunk, "state": state, "sr": np.array(RATE, np.int64)}
        yield step
        state = session.run(["stateN"], step)[0]


def _espeak(text: str) -> Signal:
    done = subprocess.run(["espeak-ng", "--stdout", text], capture_output=True, check=True)
    with wave.open(io.BytesIO(done.stdout)) as audio:
        rate = audio.getframerate()
        samples = np.frombuffer(audio.readframes(audio.getnframes()), "<i2") / 32768
    spectrum = np.fft.rfft(samples)
    length = round(len(samples) * RATE / rate)
    return (np.fft.irfft(spectrum[: length // 2 + 1], length) * length / len(samples)).astype(np.float32)


def _voice(random: np.random.Generator) -> Signal:
    """Eight syllables: a falling pitch, its harmonics weighted by a vowel's formants, a hiss before each."""
    syllables = []
    for pitch in 140 * np.exp(-0.04 * np.arange(8)) * random.uniform(0.95, 1.05, 8):
        time = np.arange(int(random.uniform(0.14, 0.24) * RATE)) / RATE
        phase = 2 * np.pi * pitch * (time + 0.01 * np.sin(2 * np.pi * 5 * time) / 5)
        formants = VOWELS[random.integers(len(VOWELS))]
        sound = sum(_weight(k * pitch, formants) * np.sin(k * phase) for k in range(1, int(4000 / pitch)))
        hiss = 0.03 * np.diff(random.normal(size=int(0.05 * RATE)))
        syllables += [hiss, 0.3 * sound * np.sqrt(np.hanning(len(time)))]
    return np.concatenate(syllables).clip(-1, 1).astype(np.float32)


def _weight(frequency: float, formants: tuple[int, ...]) -> float:
    """Sum of resonances at the formants, each weaker than the one before."""
    widths = [(formant, 60 + 0.06 * formant, rank) for rank, formant in enumerate(formants, 1)]
    return sum(1 / (1 + ((frequency - formant) / width) ** 2) / rank for formant, width, rank in widths)
