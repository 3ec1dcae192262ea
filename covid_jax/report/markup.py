"""What a report's page is made of: tables, figures, scans to leaf through, and how they look. All text goes through text.html."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from covid_jax.text import html

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"  # a browser then asks nobody for anything
STYLE = """
:root { --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --mark: #0b5cad; --bad: #a00; --tint: #f4f6f8 }
* { box-sizing: border-box }
html { scroll-padding-top: 1em; -webkit-text-size-adjust: 100% }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; max-width: 68em; margin: 0 auto; padding: 1.2em 1em 3em }
h1 { font-size: 1.55em; line-height: 1.25; margin: .3em 0 }
h2 { font-size: 1.25em; margin: 2.4em 0 .6em; padding-top: .6em; border-top: 2px solid var(--line) }
h3 { font-size: 1.05em; margin: 1.6em 0 .4em }
h1, h2, h3, p, li, dd, td, th, figcaption, caption { overflow-wrap: anywhere }
p, ul { max-width: 46em; margin: .6em 0 } ul { padding-left: 1.3em }
a { color: var(--mark) } :focus-visible { outline: 3px solid var(--mark); outline-offset: 2px }
.skip { position: absolute; left: -99em } .skip:focus { left: 1em; top: .5em; background: #fff; padding: .3em .6em }
.soft, figcaption, caption { color: var(--soft); font-size: .9em } .bad { color: var(--bad); font-weight: 600 } .good { color: #15693a; font-weight: 600 }
.none { color: var(--soft); background: var(--tint); border-left: 4px solid var(--line); padding: .4em .8em }
.warn { background: #fff6e5; border-left: 4px solid #d98c00; padding: .5em .9em }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2em 1.1em; max-width: none; margin: 1em 0 }
nav a { display: inline-block; padding: .25em 0 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5em, 1fr)); gap: .7em; margin: 1.2em 0; padding: 0; list-style: none; max-width: none }
.tiles li { background: var(--tint); border-radius: 8px; padding: .7em .9em }
.tiles b { display: block; font-size: 1.7em; line-height: 1.2; font-variant-numeric: tabular-nums } .tiles span { display: block; color: var(--soft); font-size: .85em }
.wide { overflow-x: auto; margin: .8em 0 } table { border-collapse: collapse; font-size: .93em; font-variant-numeric: tabular-nums }
caption { text-align: left; padding-bottom: .4em; min-width: 16em }
th, td { border-bottom: 1px solid var(--line); padding: .3em .9em .3em 0; text-align: left; vertical-align: top; overflow-wrap: normal }
thead th { border-bottom: 2px solid var(--line); color: var(--soft); font-weight: 600 } tbody th { font-weight: 500 }
.long td, .long th { overflow-wrap: break-word; min-width: 6em; max-width: 34em } p:not(.none):not(.soft)::first-letter { text-transform: uppercase }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24em), 1fr)); gap: 1em 2em }
.scans { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21em), 1fr)); gap: 0 1.6em }
figure { margin: .6em 0 } figure > img { max-width: 100%; height: auto; display: block }
.strip { display: flex; gap: 4px; overflow-x: auto; background: #000; border-radius: 6px } .strip img { flex: 0 0 100%; width: 100%; min-width: 0; height: auto }
.strip img[hidden] { display: none } .scan label { display: flex; gap: .6em; align-items: center; margin: .4em 0 }
.scan output { min-width: 8.5em; font-size: .9em; font-variant-numeric: tabular-nums } .scan input { flex: 1; min-width: 0; height: 2em }
details { margin: .6em 0 } summary { cursor: pointer; padding: .35em 0; font-weight: 600 }
@media print {
  body { font-size: 10.5pt; max-width: none; padding: 0 } nav, .skip, .scan label { display: none }
  h2 { break-after: avoid; margin-top: 1.4em } h3, caption { break-after: avoid } figure, tr, .tiles li { break-inside: avoid }
  details::details-content { content-visibility: visible; block-size: auto } .wide { overflow: visible } .strip img:not(.peak) { display: none } .strip img.peak, .strip img.peak[hidden] { display: block }
  .plots, .scans { grid-template-columns: 1fr 1fr } a { color: inherit; text-decoration: none }
}"""
SCRIPT = """
document.querySelectorAll('.scan').forEach(function (scan) {
  var images = scan.querySelectorAll('img');
  if (images.length < 2) return;
  var strip = scan.querySelector('.strip'), label = document.createElement('label');
  var range = document.createElement('input'), told = document.createElement('output');
  range.type = 'range'; range.max = images.length - 1;
  range.setAttribute('aria-label', 'slice of ' + strip.getAttribute('aria-label'));
  strip.removeAttribute('tabindex');
  function show() {
    images.forEach(function (image, k) { image.hidden = k !== +range.value; });
    told.textContent = images[range.value].dataset.slice;
    range.setAttribute('aria-valuetext', told.textContent);
  }
  range.addEventListener('input', show);
  range.value = Array.prototype.findIndex.call(images, function (image) { return image.className === 'peak'; });
  label.append(range, told); strip.after(label); show();
});"""


class Picture(NamedTuple):
    """content: a PNG or JPEG file; alt: what it shows, for those who do not see it; width: in pixels, as it is shown at most."""

    content: bytes
    alt: str
    width: int = 0


def address(content: bytes) -> str:
    """The picture itself as an address."""
    kind = 'png' if content.startswith(b'\x89PNG') else 'jpeg'
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def image(picture: Picture, extra: str = '') -> str:
    """A picture. extra: further attributes, which are markup."""
    width = f' width="{picture.width}"' if picture.width else ''
    return f'<img{extra} src="{address(picture.content)}" alt="{html(picture.alt)}"{width}>'


def figure(picture: Picture, caption: str) -> str:
    """A picture with its caption."""
    return f'<figure>{image(picture)}<figcaption>{html(caption)}</figcaption></figure>'


def table(caption: str, rows: Sequence[Sequence[object]], long: bool = False) -> str:
    """A table: the header first, and the first cell of a row is its heading. long: words may be broken, as names of files are."""
    header, *body = rows
    heads = ''.join(f'<th scope="col">{html(cell)}</th>' if cell != '' else '<td></td>' for cell in header)
    lines = [f'<tr><th scope="row">{html(first)}</th>{"".join(f"<td>{html(cell)}</td>" for cell in rest)}</tr>' for first, *rest in body]
    return (f'<div class="wide{" long" if long else ""}" tabindex="0" role="region" aria-label="{html(caption)}"><table>'
            f'<caption>{html(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>')


def scan(name: str, pictures: Sequence[Picture], labels: Sequence[str], peak: int, caption: str) -> str:
    """The slices of a scan, one beside the other, which the script of the page makes one with a slider. labels: of the slices; peak: the
    one that is shown first, and alone in print."""
    slices = ''.join(image(picture, f'{" class=peak" if k == peak else ""} data-slice="{html(label)}"')
                     for k, (picture, label) in enumerate(zip(pictures, labels, strict=True)))
    focus = ' tabindex="0"' if len(pictures) > 1 else ''
    return (f'<figure class="scan"><div class="strip"{focus} role="group" aria-label="{html(name)}">{slices}</div>'
            f'<figcaption>{html(caption)}</figcaption></figure>')


def section(name: str, title: str, *parts: str) -> str:
    """A section of the page, with its heading, which a link can name."""
    return f'<section id="{name}"><h2>{html(title)}</h2>{"".join(parts)}</section>'


def lines(of: Sequence[object]) -> str:
    """A list of sentences."""
    return f'<ul>{"".join(f"<li>{html(line)}</li>" for line in of)}</ul>'


def paragraph(text: object, style: str = '') -> str:
    """A paragraph. style: 'none' for what is not there, 'warn', 'bad', 'good', 'soft'."""
    return f'<p{f" class={style}" if style else ""}>{html(text)}</p>'


def folded(title: str, *parts: str) -> str:
    """What is seen once it is asked for."""
    return f'<details><summary>{html(title)}</summary>{"".join(parts)}</details>'


def fields(caption: str, of: Mapping[str, Any], heads: tuple[str, str] = ('', 'what the report says')) -> str:
    """A table of names and values; what is empty is left out."""
    rows = [(name, value) for name, value in of.items() if value not in ('', None, {}, [])]
    return table(caption, [heads, *rows], long=True) if rows else ''


def page(title: str, parts: Sequence[str]) -> str:
    """The whole page."""
    return ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{html(title)}</title><style>{STYLE}</style></head>\n'
            f'<body>{chr(10).join(parts)}\n<script>{SCRIPT}</script></body></html>\n')
