//! A comparison as a bar chart: a group of bars for each phase, seconds on a logarithmic axis, a line from the least
//! to the greatest time. Colours follow the reader's light or dark scheme.

use std::fmt::{self, Write as _};

use super::{Comparison, Spread, WHOLE};

/// Left edge and width of the plot, and what is kept right of it for the last figures, in pixels.
const LEFT: f64 = 170.0;
const WIDTH: f64 = 600.0;
const RIGHT: f64 = 80.0;
/// Height of the title and the legend, and of the axis below the plot.
const TOP: f64 = 84.0;
const BOTTOM: f64 = 44.0;
/// Height of a bar, and space between groups of bars.
const BAR: f64 = 11.0;
const GAP: f64 = 9.0;

/// Colours that differ for most kinds of colour vision and on both backgrounds (after Okabe and Ito), one for each
/// column in turn.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"];

const STYLE: &str = "\
svg{color:#1a1a1a;font:12px system-ui,sans-serif}.back{fill:#fff}\
.grid{stroke:currentColor;stroke-opacity:.15}\
.range{stroke:currentColor;stroke-opacity:.75}\
text{fill:currentColor}.dim{fill-opacity:.7}.title{font-size:16px;font-weight:600}\
@media(prefers-color-scheme:dark){svg{color:#e6e6e6}.back{fill:#14171a}}";

/// An SVG document.
#[must_use]
pub fn svg(comparison: &Comparison) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, comparison);
    text
}

fn write(out: &mut String, comparison: &Comparison) -> fmt::Result {
    let phases: Vec<&str> = comparison
        .phases()
        .into_iter()
        .filter(|phase| {
            (0..comparison.columns.len()).any(|c| comparison.spread(c, phase).is_some())
        })
        .collect();
    let columns = comparison.columns.len();
    let step = BAR * columns as f64 + GAP;
    let plot = step * phases.len() as f64;
    let (width, height) = (LEFT + WIDTH + RIGHT, TOP + plot + BOTTOM);
    let axis = Axis::around(
        phases
            .iter()
            .flat_map(|phase| (0..columns).filter_map(|column| comparison.spread(column, phase))),
    );
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">"
    )?;
    writeln!(out, "<title>{}: CPU time by phase</title>", escaped(&comparison.guest))?;
    writeln!(out, "<style>{STYLE}</style>")?;
    writeln!(out, "<rect class=\"back\" width=\"{width}\" height=\"{height}\"/>")?;
    writeln!(out, "<text class=\"title\" x=\"12\" y=\"26\">{}</text>", escaped(&comparison.guest))?;
    let setting = comparison.setting.first().map_or("", String::as_str);
    writeln!(out, "<text class=\"dim\" x=\"12\" y=\"44\">{}</text>", escaped(setting))?;
    let mut x = LEFT;
    for (index, column) in comparison.columns.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        writeln!(
            out,
            "<rect x=\"{x}\" y=\"56\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{colour}\"/>"
        )?;
        writeln!(out, "<text x=\"{}\" y=\"66\">{}</text>", x + 17.0, escaped(&column.name))?;
        x += 40.0 + 7.5 * column.name.chars().count() as f64;
    }
    for (time, label) in axis.ticks() {
        let (x, bottom) = (LEFT + axis.place(time), TOP + plot);
        writeln!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>"
        )?;
        let y = bottom + 16.0;
        writeln!(
            out,
            "<text class=\"dim\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>"
        )?;
    }
    let (x, y) = (LEFT + WIDTH / 2.0, TOP + plot + 34.0);
    writeln!(
        out,
        "<text class=\"dim\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">CPU time in seconds, logarithmic</text>"
    )?;
    for (index, phase) in phases.iter().enumerate() {
        let top = TOP + step * index as f64 + GAP / 2.0;
        let middle = top + BAR * columns as f64 / 2.0 + 4.0;
        let weight = if *phase == WHOLE { " font-weight=\"600\"" } else { "" };
        writeln!(
            out,
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\"{weight}>{}</text>",
            LEFT - 10.0,
            escaped(phase)
        )?;
        for column in 0..columns {
            if let Some(spread) = comparison.spread(column, phase) {
                bar(out, &axis, column, top + BAR * column as f64, spread)?;
            }
        }
    }
    writeln!(out, "</svg>")
}

fn bar(out: &mut String, axis: &Axis, column: usize, y: f64, spread: Spread) -> fmt::Result {
    let [min, median, max] = [spread.min, spread.median, spread.max].map(|time| axis.place(time));
    let (height, middle) = (BAR - 1.5, y + BAR / 2.0);
    writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{median:.1}\" height=\"{height}\" rx=\"1.5\" fill=\"{}\"/>",
        COLOURS[column % COLOURS.len()]
    )?;
    if max - min > 1.0 {
        writeln!(
            out,
            "<line class=\"range\" x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\"/>",
            LEFT + min,
            LEFT + max
        )?;
    }
    writeln!(
        out,
        "<text class=\"dim\" font-size=\"10\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        LEFT + max + 5.0,
        middle + 3.0,
        seconds(spread.median)
    )
}

/// A logarithmic axis from one of 1, 2, 5 times a power of ten to another.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn around(spreads: impl Iterator<Item = Spread>) -> Self {
        let (mut least, mut greatest) = (f64::INFINITY, 0.0_f64);
        for spread in spreads {
            // A millisecond is as short as anything that is worth a bar.
            least = least.min(spread.min.max(0.001));
            greatest = greatest.max(spread.max);
        }
        if least > greatest {
            (least, greatest) = (0.1, 1.0);
        }
        let steps =
            || (-3..6).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
        // The shortest bar is to be seen.
        let low = steps().take_while(|step| *step <= least / 1.2).last().unwrap_or(least / 2.0);
        let high = steps().find(|step| *step >= greatest).unwrap_or(greatest);
        Axis { low, high: high.max(low * 2.0) }
    }

    /// Pixels right of the left edge.
    fn place(&self, time: f64) -> f64 {
        WIDTH * ((time.max(self.low) / self.low).ln() / (self.high / self.low).ln())
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let digits: &[f64] = if self.high / self.low > 2000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        (-3..6)
            .flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)))
            .filter(|time| (self.low * 0.999..=self.high * 1.001).contains(time))
            // Powers of ten come out of `powi` with a last digit that nobody wants to read.
            .map(|time| (time, format!("{}", (time * 1000.0).round() / 1000.0)))
            .collect()
    }
}

/// Three digits.
fn seconds(time: f64) -> String {
    match time {
        _ if time < 1.0 => format!("{time:.3}"),
        _ if time < 10.0 => format!("{time:.2}"),
        _ => format!("{time:.1}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
