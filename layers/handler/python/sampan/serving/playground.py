"""The page at `/`: every model, and a box to send a request from. One file, no script of anybody else's."""

from html import escape

from sampan.serving.codecs import json
from sampan.serving.openapi import example
from sampan.serving.repository import ModelRepository, ServedModel

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sampan</title><style>
:root{{color-scheme:light dark;--line:#8884;--accent:#0a7}}
body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
h1{{font-size:1.5rem}} h2{{font-size:1.1rem;margin:0}} code,textarea,pre{{font:13px/1.45 ui-monospace,monospace}}
section{{border:1px solid var(--line);border-radius:8px;padding:1rem;margin:1rem 0}}
table{{border-collapse:collapse;margin:.5rem 0}} td,th{{text-align:left;padding:.1rem 1rem .1rem 0}}
textarea{{width:100%;box-sizing:border-box;height:9rem}} pre{{white-space:pre-wrap;word-break:break-all;margin:.5rem 0}}
button{{background:var(--accent);color:#fff;border:0;border-radius:6px;padding:.4rem 1rem;font-size:1rem}}
small{{opacity:.7}}</style></head><body>
<h1>Sampan</h1><p><a href="docs">Reference</a> · <a href="openapi.json">OpenAPI</a> · <a href="v2">Server</a></p>
{models}
<script>
document.querySelectorAll("form").forEach(form => form.addEventListener("submit", async event => {{
  event.preventDefault();
  const out = form.querySelector("pre"), start = performance.now();
  const file = form.querySelector("input[type=file]")?.files[0];
  out.textContent = "…";
  try {{
    const answer = await fetch(form.getAttribute("action"), {{method: "POST",
      headers: {{"content-type": file ? "application/octet-stream" : "application/json"}},
      body: file ?? form.querySelector("textarea").value}});
    const text = await answer.text(), ms = (performance.now() - start).toFixed(1);
    out.textContent = answer.status + " in " + ms + " ms\\n" + text.slice(0, 20000);
  }} catch (error) {{ out.textContent = String(error); }}
}}));
</script></body></html>"""

_MODEL = """<section><h2>{name}</h2><small>version {version}{task}</small>
<table><tr><th></th><th>name</th><th>datatype</th><th>shape</th></tr>{rows}</table>
<form action="{action}" method="post"><textarea name="body" aria-label="request" spellcheck="false">{body}</textarea>
<p><button>Send</button> <code>POST /{action}</code> {file}</p><pre></pre></form></section>"""

_GREETING = '{"input": "Hello, Sampan"}'
_STARTERS = {"text": _GREETING, "bytes": _GREETING, "image": '{"input": {"b64": ""}}'}
_FILE = '<label>or a file: <input type="file"></label>'


def page(repository: ModelRepository) -> str:
    """HTML of the playground."""
    return _PAGE.format(models="\n".join(_section(model) for model in repository.live()))


def _section(model: ServedModel) -> str:
    kind = model.manifest.pipeline["input"]["kind"] if model.manifest.pipeline else "rows"
    action = f"v2/models/{model.name}/infer" if kind == "rows" else f"models/{model.name}/predict"
    body = _STARTERS.get(kind) or json.dumps(example(model) or {"inputs": []}).decode()
    rows = [_row("input", *spec) for spec in _specs(model, "inputs")]
    rows += [_row("output", *spec) for spec in _specs(model, "outputs")]
    return _MODEL.format(
        name=escape(model.name),
        version=escape(model.version),
        task=escape(f" · {model.manifest.task}" if model.manifest.task else ""),
        rows="".join(rows),
        action=escape(action),
        body=escape(body),
        file=_FILE if kind in ("bytes", "image") else "",
    )


def _specs(model: ServedModel, side: str) -> list[tuple[str, str, str]]:
    return [(spec.name, spec.datatype, str(list(spec.shape))) for spec in getattr(model.signature, side)]


def _row(side: str, name: str, datatype: str, shape: str) -> str:
    return f"<tr><td>{side}</td><td>{escape(name)}</td><td>{datatype}</td><td>{escape(shape)}</td></tr>"
