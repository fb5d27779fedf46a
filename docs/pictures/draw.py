"""Draws how.svg and how-dark.svg: where the circuit stands in the two kinds of adapter. Takes pictures of a report.

python docs/pictures/draw.py             # the drawing
python docs/pictures/draw.py chromium    # and report.png, report-dark.png, by this browser
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

LIGHT = {
    "ink": "#1f2937",
    "soft": "#6b7280",
    "line": "#9ca3af",
    "box": "#f3f4f6",
    "quantum": "#ede9fe",
    "edge": "#7c3aed",
}
DARK = {
    "ink": "#e5e7eb",
    "soft": "#9ca3af",
    "line": "#6b7280",
    "box": "#1f2937",
    "quantum": "#3b2a63",
    "edge": "#a78bfa",
}
WIDTH, HEIGHT = 860, 366


class Drawing:
    """SVG parts in one palette. Places are pixels, x to the right and y down."""

    def __init__(self, palette: dict[str, str]) -> None:
        self.palette, self.parts = palette, []

    def text(self, x: float, y: float, words: str, *, size: int = 14, ink: str = "ink", bold: bool = False) -> None:
        """Centred text."""
        weight = ' font-weight="600"' if bold else ""
        fill = self.palette[ink]
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="middle" fill="{fill}"{weight}>{words}</text>'
        )

    def box(self, x: float, y: float, width: float, words: str, below: str = "", *, quantum: bool = False) -> None:
        """A box of height 50 centred at (x, y), with a smaller line under its words."""
        fill, edge = ("quantum", "edge") if quantum else ("box", "line")
        self.parts.append(
            f'<rect x="{x - width / 2}" y="{y - 25}" width="{width}" height="50" rx="8" '
            f'fill="{self.palette[fill]}" stroke="{self.palette[edge]}" stroke-width="1.5"/>'
        )
        self.text(x, y + (-2 if below else 5), words, bold=True)
        if below:
            self.text(x, y + 15, below, size=11, ink="soft")

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through points with a head at the last."""
        path = " ".join(f"{x},{y}" for x, y in points)
        line = self.palette["line"]
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{line}" stroke-width="1.5" marker-end="url(#head)"/>'
        )

    def circuit(self, x: float, y: float, *, frame: float) -> None:
        """Four wires with rotations and controls between them, centred at (x, y) in a frame so wide and 76 high."""
        edge, line = self.palette["edge"], self.palette["line"]
        self.parts.append(
            f'<rect x="{x - frame / 2}" y="{y - 38}" width="{frame}" height="76" rx="8" fill="none" '
            f'stroke="{edge}" stroke-width="1.5"/>'
        )
        for wire in range(4):
            level = y - 30 + 20 * wire
            self.parts.append(f'<line x1="{x - 48}" y1="{level}" x2="{x + 48}" y2="{level}" stroke="{line}"/>')
            for place in (-36, 24):
                self.parts.append(
                    f'<rect x="{x + place}" y="{level - 6}" width="12" height="12" rx="2" '
                    f'fill="{self.palette["quantum"]}" stroke="{edge}"/>'
                )
        for wire in range(3):
            level, place = y - 30 + 20 * wire, x - 14 + 12 * wire
            self.parts.append(f'<line x1="{place}" y1="{level}" x2="{place}" y2="{level + 20}" stroke="{edge}"/>')
            self.parts += [f'<circle cx="{place}" cy="{at}" r="3" fill="{edge}"/>' for at in (level, level + 20)]

    def svg(self) -> str:
        """The whole picture."""
        line = self.palette["line"]
        head = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{line}"/></marker></defs>'
        )
        title = "<title>Left: the circuit reads the text. Right: the circuit makes the weights.</title>"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'font-family="system-ui, sans-serif" role="img">{title}{head}{"".join(self.parts)}</svg>\n'
        )


def picture(palette: dict[str, str]) -> str:
    """Both kinds side by side: each a layer of the model, text from below to above."""
    drawing = Drawing(palette)
    for x, title, what in (
        (215, "QTHA", "the circuit reads the text, token by token"),
        (645, "quantum-weighted", "the circuit makes the weights and never sees the text"),
    ):
        drawing.text(x, 22, title, size=17, bold=True)
        drawing.text(x, 42, what, size=12, ink="soft")
    drawing.parts.append(
        f'<line x1="430" y1="14" x2="430" y2="{HEIGHT - 14}" stroke="{palette["line"]}" stroke-dasharray="3 5"/>'
    )
    # Left: text, down, circuit, up, text; the layer itself beside them.
    drawing.text(215, 356, "text in")
    drawing.text(215, 70, "text out")
    drawing.arrow((215, 340), (215, 328), (80, 328), (80, 231))
    drawing.arrow((80, 177), (80, 88), (205, 88), (205, 78))
    drawing.box(80, 204, 110, "layer", "frozen")
    drawing.arrow((215, 340), (215, 328), (280, 328), (280, 317))
    drawing.box(280, 290, 170, "down", "tensor network, or a matrix")
    drawing.arrow((280, 264), (280, 245))
    drawing.circuit(280, 206, frame=170)
    drawing.arrow((280, 168), (280, 153))
    drawing.box(280, 126, 170, "up", "tensor network, or a matrix")
    drawing.arrow((280, 101), (280, 88), (225, 88), (225, 78))
    # Right: the layer and its update, whose numbers a circuit without inputs makes once a step.
    drawing.text(545, 356, "text in")
    drawing.text(545, 70, "text out")
    drawing.arrow((545, 340), (545, 328), (500, 328), (500, 231))
    drawing.arrow((545, 328), (590, 328), (590, 231))
    drawing.arrow((500, 177), (500, 88), (540, 88), (540, 78))
    drawing.arrow((590, 177), (590, 88), (550, 88), (550, 78))
    drawing.box(500, 204, 76, "layer", "frozen")
    drawing.box(590, 204, 76, "update", "a matrix")
    drawing.circuit(755, 204, frame=130)
    drawing.arrow((690, 204), (632, 204))
    drawing.text(660, 194, "numbers", size=11, ink="soft")
    drawing.text(755, 262, "once a step, for all layers;", size=12, ink="soft")
    drawing.text(755, 280, "simulator or quantum computer", size=12, ink="soft")
    return drawing.svg()


def photograph(browser: str) -> None:
    """Pictures of the top of a report, as a browser shows it by day and by night."""
    with tempfile.TemporaryDirectory() as folder:
        page, records = Path(folder) / "report.html", HERE.parent / "evidence/word_problems_again.json"
        subprocess.run([sys.executable, "-m", "qpeft_cli", "report", str(records), "--html", str(page)], check=True)
        for name, scheme in (("report.png", 1), ("report-dark.png", 0)):
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,560"]
            shot = [f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={HERE / name}"]
            subprocess.run([browser, *options, *shot, page.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    for name, palette in (("how.svg", LIGHT), ("how-dark.svg", DARK)):
        (HERE / name).write_text(picture(palette), encoding="utf-8")
    if len(sys.argv) > 1:
        photograph(sys.argv[1])
