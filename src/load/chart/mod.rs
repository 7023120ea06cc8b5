//! A line chart as one SVG document, for people who would rather see a run than read it.
//!
//! The document needs nothing but itself, as a file in a browser or as an image in a README: no
//! script, no font, no link. It follows the reader's choice of light or dark, and stands on a
//! ground of its own where the page does not. Its lines differ in colour, dashes and markers, so
//! that those who cannot tell the colours can tell the lines.

mod lettering;
mod ticks;

use std::fmt;

use lettering::{Xml, shortened, width, wrapped};
use ticks::{Ruler, Tick};
pub(super) use ticks::{Scale, Unit};

/// A line chart; displayed, it is the text of an SVG document.
#[derive(Clone, Debug)]
pub(super) struct Chart<'a> {
    /// What it shows, in a few words.
    pub(super) title: &'a str,
    /// How it came about: machine, date, command. As long as need be, or empty.
    pub(super) subtitle: &'a str,
    /// The axis from left to right.
    pub(super) x: Axis<'a>,
    /// The axis from bottom to top.
    pub(super) y: Axis<'a>,
    /// The lines; looks are there for four.
    pub(super) series: Vec<Series<'a>>,
}

/// What one of the two coordinates means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis<'a> {
    /// What is counted, with the unit where the ticks do not say it: "members", "time".
    pub(super) label: &'a str,
    /// How the values are spaced.
    pub(super) scale: Scale,
    /// What the values are.
    pub(super) unit: Unit,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Series<'a> {
    /// What it is the line of; shown at its end if there are several.
    pub(super) name: &'a str,
    /// Its points in any order, in the units of the axes. What is not a number is left out.
    pub(super) points: Vec<(f64, f64)>,
}

// All lengths are in the picture's own units: pixels, where it is not scaled.
const WIDTH: f64 = 800.0;
/// Between the edge of the picture and whatever is in it.
const PADDING: f64 = 24.0;
/// The height of the plot. That of the picture follows from it and from how much is said above.
const PLOT: f64 = 300.0;
/// Between things that are next to each other.
const GAP: f64 = 10.0;
/// The grid is no denser than this.
const ROW: f64 = 40.0;
const COLUMN: f64 = 64.0;
/// To the right of the plot, for the half of the last tick's text that juts out.
const JUT: f64 = 48.0;
/// The sizes of letters.
const TITLE: f64 = 19.0;
const SMALL: f64 = 12.0;
const LABEL: f64 = 13.0;
/// How much wider the bold ones of them are.
const BOLD: f64 = 1.15;
/// From one line of small text or one label to the next.
const LEADING: f64 = 17.0;
/// The sample of a line in front of its label: long enough to begin and end with a whole dash.
const SAMPLE: f64 = 30.0;
/// No label gets wider; it would leave the plot too little.
const LABELS: f64 = 220.0;
/// A line with more points than this is thinned out; the plot is hardly wider.
const PLENTY: usize = 700;
/// A line with at most so many points shows each with a marker, a longer one only its last.
const MARKED: usize = 32;

/// A blue, an orange, the colour of text and a bluish green: those who see fewer colours than most
/// still see the first three apart, by hue or by lightness, and hardly ever confuse the fourth. All
/// have the contrast that text needs, because the labels are written in them.
const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;\
font-size:12px;font-variant-numeric:tabular-nums;fill:#59636e}\
.title{font-size:19px;font-weight:600;fill:#1f2328}\
.label{font-size:13px;font-weight:600}\
.ground{fill:#fff;stroke:#d1d9e0}\
.grid{stroke:#e8ecf0}.base{stroke:#8c959f}\
.line,.grid,.base{fill:none}.grid,.base{shape-rendering:crispEdges}\
.line{stroke-width:2.2;stroke-linejoin:round}\
.mark{stroke:#fff;stroke-width:1.2}\
.d1{stroke-dasharray:8 3}.d2{stroke-dasharray:3 2.4}.d3{stroke-dasharray:10 3 4 3}\
.l0{stroke:#0b63b8}.l1{stroke:#b84a00}.l2{stroke:#24292f}.l3{stroke:#00796b}\
.f0{fill:#0b63b8}.f1{fill:#b84a00}.f2{fill:#24292f}.f3{fill:#00796b}\
@media(prefers-color-scheme:dark){\
text{fill:#9aa4af}.title{fill:#f0f6fc}\
.ground{fill:#0d1117;stroke:#30363d}\
.grid{stroke:#222930}.base{stroke:#656c76}\
.mark{stroke:#0d1117}\
.l0{stroke:#58a6ff}.l1{stroke:#ff9d4d}.l2{stroke:#e6edf3}.l3{stroke:#3fc9a3}\
.f0{fill:#58a6ff}.f1{fill:#ff9d4d}.f2{fill:#e6edf3}.f3{fill:#3fc9a3}}";

/// What a marker looks like, drawn from its middle: a circle, a square, a triangle, a diamond.
const MARKERS: [&str; 4] = [
    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "m-3.6-3.6h7.2v7.2h-7.2z",
    "m0-4.8l4.6 8.2h-9.2z",
    "m0-5l5 5l-5 5l-5-5z",
];

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = Layout::new(self);
        let (width, height) = (WIDTH, px(layout.height));
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">"
        )?;
        writeln!(f, "<title>{}</title>", Xml(self.title))?;
        writeln!(f, "<desc>{}</desc>", Xml(&self.description()))?;
        writeln!(f, "<style>{STYLE}</style>")?;
        // Half a pixel in, so that its border is sharp.
        writeln!(
            f,
            "<rect class=\"ground\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"10\"/>",
            width - 1.0,
            px(height - 1.0)
        )?;
        layout.draw_grid(f)?;
        layout.draw_lines(f)?;
        for text in &layout.texts {
            writeln!(f, "{text}")?;
        }
        f.write_str("</svg>\n")
    }
}

impl Chart<'_> {
    /// What the picture shows, for those who do not see it.
    fn description(&self) -> String {
        let (x, y) = (self.x, self.y);
        let mut sentences = Vec::new();
        if !self.subtitle.is_empty() {
            sentences.push(format!("{}.", self.subtitle));
        }
        sentences.push(format!("Line chart of {} against {}.", y.label, x.label));
        for (series, points) in self.series.iter().zip(self.points()) {
            let heights = || points.iter().map(|point| point.1);
            let lowest = heights().min_by(f64::total_cmp);
            let highest = heights().max_by(f64::total_cmp);
            let (Some(first), Some(last), Some(lowest), Some(highest)) =
                (points.first(), points.last(), lowest, highest)
            else {
                sentences.push(format!("{}: no data.", series.name));
                continue;
            };
            sentences.push(format!(
                "{}: from {} at {} to {} at {}; lowest {}, highest {}.",
                series.name,
                y.unit.text(first.1),
                x.unit.text(first.0),
                y.unit.text(last.1),
                x.unit.text(last.0),
                y.unit.text(lowest),
                y.unit.text(highest),
            ));
        }
        sentences.join(" ")
    }

    /// What can be shown of each series, from left to right.
    fn points(&self) -> Vec<Vec<(f64, f64)>> {
        let has = |&(x, y): &(f64, f64)| self.x.scale.has(x) && self.y.scale.has(y);
        let sorted = |series: &Series<'_>| {
            let points = series.points.iter().copied();
            let mut points: Vec<_> = points.filter(has).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points
        };
        self.series.iter().map(sorted).collect()
    }

    /// The names at the ends of the lines, where there is more than one.
    fn names(&self) -> Vec<String> {
        if self.series.len() < 2 {
            return Vec::new();
        }
        let name = |series: &Series<'_>| shortened(series.name, BOLD * LABEL, LABELS);
        self.series.iter().map(name).collect()
    }
}

/// A line of text in the picture.
struct Text {
    class: &'static str,
    /// Which end of it is at the point, or its middle.
    anchor: &'static str,
    at: (f64, f64),
    words: String,
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<text x=\"{}\" y=\"{}\"", px(self.at.0), px(self.at.1))?;
        for (name, value) in [("class", self.class), ("text-anchor", self.anchor)] {
            if !value.is_empty() {
                write!(f, " {name}=\"{value}\"")?;
            }
        }
        write!(f, ">{}</text>", Xml(&self.words))
    }
}

/// The name of a series, in the margin where its line ends.
struct Label {
    series: usize,
    y: f64,
    text: String,
}

/// Where everything goes.
struct Layout {
    texts: Vec<Text>,
    labels: Vec<Label>,
    /// The points of each series, in the picture's coordinates.
    lines: Vec<Vec<(f64, f64)>>,
    /// Where the grid's lines are.
    columns: Vec<f64>,
    rows: Vec<f64>,
    /// The edges of the plot.
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// Of the whole picture.
    height: f64,
}

impl Layout {
    fn new(chart: &Chart<'_>) -> Self {
        let points = chart.points();
        let (xs, ys): (Vec<_>, Vec<_>) = points.iter().flatten().copied().unzip();
        let (texts, top) = heading(chart);
        let bottom = top + PLOT;

        let y = Ruler::new(chart.y.scale, chart.y.unit, &ys, true, |low, high| {
            (high.position - low.position) * PLOT >= ROW
        });
        let left = PADDING + widest(y.ticks.iter().map(|tick| &tick.text), SMALL) + GAP;
        let names = chart.names();
        let margin = if names.is_empty() {
            JUT
        } else {
            JUT.max(PADDING + SAMPLE + 2.5 * GAP + widest(&names, BOLD * LABEL))
        };
        let right = WIDTH - margin;
        // Percentiles are where they are; all others may as well leave each other some space.
        let column = match chart.x.scale {
            Scale::Percentile => 0.0,
            Scale::Linear | Scale::Log => COLUMN,
        };
        let x = Ruler::new(chart.x.scale, chart.x.unit, &xs, false, |one, next| {
            let halves = f64::midpoint(width(&one.text, SMALL), width(&next.text, SMALL));
            (next.position - one.position) * (right - left) >= column.max(halves + GAP)
        });

        let place_x = |position: f64| left + position * (right - left);
        let place_y = |position: f64| bottom - position * PLOT;
        let place =
            |&(at_x, at_y): &(f64, f64)| (place_x(x.position(at_x)), place_y(y.position(at_y)));
        let line = |points: &Vec<_>| thinned(points.iter().map(place).collect());
        let lines: Vec<_> = points.iter().map(line).collect();
        let mut layout = Self {
            texts,
            labels: labels(&lines, names, top, bottom),
            lines,
            columns: Vec::new(),
            rows: Vec::new(),
            left,
            right,
            top,
            bottom,
            height: bottom + 44.0 + PADDING,
        };
        let middle = f64::midpoint(left, right);
        let room = 2.0 * ((WIDTH - middle).min(middle) - PADDING);
        let label = shortened(&label(&chart.x), SMALL, room);
        layout.push("middle", (middle, bottom + 44.0), label);
        if xs.is_empty() {
            // Ticks would only pretend that something had been counted.
            let at = (middle, f64::midpoint(top, bottom));
            layout.push("middle", at, "no data".to_owned());
            return layout;
        }
        for Tick { position, text } in y.ticks {
            let at = place_y(position);
            layout.rows.push(at);
            // The letters' middle, not their feet, at the height of the line.
            layout.push("end", (left - GAP, at + 4.0), text);
        }
        for Tick { position, text } in x.ticks {
            let at = place_x(position);
            layout.columns.push(at);
            layout.push("middle", (at, bottom + 20.0), text);
        }
        layout
    }

    fn push(&mut self, anchor: &'static str, at: (f64, f64), words: String) {
        self.texts.push(Text {
            class: "",
            anchor,
            at,
            words,
        });
    }

    fn draw_grid(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, right) = (px(self.left), px(self.right));
        let (top, bottom) = (px(self.top), px(self.bottom));
        f.write_str("<path class=\"grid\" d=\"")?;
        for &row in &self.rows {
            write!(f, "M{left} {}H{right}", px(row))?;
        }
        for &column in &self.columns {
            write!(f, "M{} {top}V{bottom}", px(column))?;
        }
        writeln!(f, "\"/>")?;
        writeln!(f, "<path class=\"base\" d=\"M{left} {bottom}H{right}\"/>")
    }

    fn draw_lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first is the one that the picture is about, and goes on top.
        for (series, line) in self.lines.iter().enumerate().rev() {
            let marked = match line.len() {
                0..=MARKED => &line[..],
                all => &line[all - 1..],
            };
            draw_line(f, series, line, marked)?;
        }
        for Label { series, y, text } in &self.labels {
            let at = self.right + 1.7 * GAP;
            let sample = [(at, *y), (at + SAMPLE, *y)];
            draw_line(f, *series, &sample, &[(at + SAMPLE / 2.0, *y)])?;
            let text = Text {
                class: ["label f0", "label f1", "label f2", "label f3"][look(*series)],
                anchor: "",
                at: (at + SAMPLE + 0.8 * GAP, y + 4.5),
                words: text.clone(),
            };
            writeln!(f, "{text}")?;
        }
        Ok(())
    }
}

/// The lines above the plot, and where the plot begins.
fn heading(chart: &Chart<'_>) -> (Vec<Text>, f64) {
    let room = WIDTH - 2.0 * PADDING;
    let title = wrapped(chart.title, BOLD * TITLE, room);
    let subtitle = wrapped(chart.subtitle, SMALL, room);
    let label = shortened(&label(&chart.y), SMALL, room);
    let title = title.into_iter().map(|line| ("title", line, 24.0));
    let subtitle = subtitle.into_iter().map(|line| ("", line, LEADING));
    let mut y = PADDING - 5.0;
    let mut texts = Vec::new();
    for (class, words, leading) in title.chain(subtitle).chain([("", label, 30.0)]) {
        y += leading;
        texts.push(Text {
            class,
            anchor: "",
            at: (PADDING, y),
            words,
        });
    }
    (texts, y + 18.0)
}

/// How wide the widest of some texts is.
fn widest<'a>(texts: impl IntoIterator<Item = &'a String>, size: f64) -> f64 {
    let widths = texts.into_iter().map(|text| width(text, size));
    widths.fold(0.0, f64::max)
}

/// The label of an axis. That it is logarithmic, nobody should have to find out by the ticks.
fn label(axis: &Axis<'_>) -> String {
    match axis.scale {
        Scale::Log => format!("{} (log scale)", axis.label),
        Scale::Linear | Scale::Percentile => axis.label.to_owned(),
    }
}

/// The labels of the lines that have an end, as near to it as the others let them.
fn labels(lines: &[Vec<(f64, f64)>], names: Vec<String>, top: f64, bottom: f64) -> Vec<Label> {
    let ends = lines.iter().map(|line| line.last()).zip(names).enumerate();
    let mut labels: Vec<_> = ends
        .filter_map(|(series, (end, text))| {
            let &(_, y) = end?;
            Some(Label { series, y, text })
        })
        .collect();
    labels.sort_by(|a, b| a.y.total_cmp(&b.y));
    // Down from the one above, and then up again from the bottom: there is room for a dozen.
    let mut free = top;
    for label in &mut labels {
        label.y = label.y.max(free);
        free = label.y + LEADING;
    }
    let mut free = bottom;
    for label in labels.iter_mut().rev() {
        label.y = label.y.min(free);
        free = label.y - LEADING;
    }
    labels
}

/// Thins a line out to about a point a pixel: of each two pixels the highest and the lowest, which
/// is all that could be seen of them.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let (Some(&first), Some(&last)) = (points.first(), points.last()) else {
        return points;
    };
    if points.len() <= PLENTY {
        return points;
    }
    let column = |point: &(f64, f64)| (point.0 / 2.0).floor() as i32;
    let by_height = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
    let mut kept = vec![first];
    for column in points.chunk_by(|a, b| column(a) == column(b)) {
        let heights = || column.iter().map(|point| point.1).enumerate();
        let extremes = heights().min_by(by_height).zip(heights().max_by(by_height));
        if let Some(((one, _), (other, _))) = extremes {
            kept.extend([column[one.min(other)], column[one.max(other)]]);
        }
    }
    kept.push(last);
    kept.dedup();
    kept
}

/// Draws a line with some of its points marked.
fn draw_line(
    f: &mut fmt::Formatter<'_>,
    series: usize,
    line: &[(f64, f64)],
    marked: &[(f64, f64)],
) -> fmt::Result {
    let look = look(series);
    if line.len() > 1 {
        write!(f, "<polyline class=\"line l{look} d{look}\" points=\"")?;
        for (number, &(x, y)) in line.iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            write!(f, "{space}{},{}", px(x), px(y))?;
        }
        writeln!(f, "\"/>")?;
    }
    if !marked.is_empty() {
        write!(f, "<path class=\"mark f{look}\" d=\"")?;
        for &(x, y) in marked {
            write!(f, "M{} {}{}", px(x), px(y), MARKERS[look])?;
        }
        writeln!(f, "\"/>")?;
    }
    Ok(())
}

/// The number of a series' looks.
fn look(series: usize) -> usize {
    series % MARKERS.len()
}

/// A coordinate to a tenth of a pixel; more would only be more bytes.
fn px(coordinate: f64) -> f64 {
    (coordinate * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALES: [Scale; 3] = [Scale::Linear, Scale::Log, Scale::Percentile];
    const UNITS: [Unit; 5] = [
        Unit::Count,
        Unit::Seconds,
        Unit::Duration,
        Unit::Bytes,
        Unit::Percent,
    ];

    fn scales_and_units() -> impl Iterator<Item = (Scale, Unit)> {
        let pairs = SCALES.map(|scale| UNITS.map(|unit| (scale, unit)));
        pairs.into_iter().flatten()
    }

    fn axis(label: &str, scale: Scale, unit: Unit) -> Axis<'_> {
        Axis { label, scale, unit }
    }

    /// A chart of counts by the second, with a line named by its number for each of some points.
    fn chart(series: &[&[(f64, f64)]]) -> Chart<'static> {
        let names = ["first", "second", "third", "fourth"].into_iter();
        let series = names.zip(series).map(|(name, points)| Series {
            name,
            points: points.to_vec(),
        });
        Chart {
            title: "Title",
            subtitle: "",
            x: axis("time", Scale::Linear, Unit::Seconds),
            y: axis("messages", Scale::Linear, Unit::Count),
            series: series.collect(),
        }
    }

    /// The values of an attribute, in elements that begin so.
    fn attributes<'a>(svg: &'a str, element: &str, name: &str) -> Vec<&'a str> {
        let start = format!(" {name}=\"");
        let elements = svg.lines().filter(|line| line.starts_with(element));
        let value = |line: &'a str| line.split_once(&start)?.1.split('"').next();
        elements.filter_map(value).collect()
    }

    fn numbers(list: &str) -> Vec<f64> {
        let numbers = list.split([' ', ',']).filter(|number| !number.is_empty());
        numbers.map(|number| number.parse().unwrap()).collect()
    }

    /// The points of the lines, without the samples of their labels.
    fn lines(svg: &str) -> Vec<Vec<(f64, f64)>> {
        let lines = attributes(svg, "<polyline", "points").into_iter();
        let points = |list| numbers(list).chunks(2).map(|at| (at[0], at[1])).collect();
        let lines: Vec<Vec<_>> = lines.map(points).collect();
        let samples = svg.matches("class=\"label").count();
        lines[..lines.len() - samples].to_vec()
    }

    /// Where each text begins, where it ends, its height, and what it says.
    fn texts(svg: &str) -> Vec<(f64, f64, f64, String)> {
        let elements = svg.lines().filter(|line| line.starts_with("<text"));
        let text = |line: &str| {
            let at = |name| attributes(line, "<text", name).first().copied();
            let (x, y) = (numbers(at("x").unwrap())[0], numbers(at("y").unwrap())[0]);
            let (_, text) = line.trim_end_matches("</text>").split_once('>').unwrap();
            let size = match at("class") {
                Some("title") => BOLD * TITLE,
                Some(_) => BOLD * LABEL,
                None => SMALL,
            };
            let width = width(text, size);
            let before = match at("text-anchor") {
                Some("end") => width,
                Some("middle") => width / 2.0,
                _ => 0.0,
            };
            (x - before, x - before + width, y, text.to_owned())
        };
        elements.map(text).collect()
    }

    fn says(svg: &str, wanted: &str) -> bool {
        texts(svg).iter().any(|(_, _, _, text)| text == wanted)
    }

    /// Checks that everything is somewhere, inside the picture.
    fn assert_inside(svg: &str, of: &dyn fmt::Debug) {
        let height = numbers(attributes(svg, "<svg", "height")[0])[0];
        let drawing = &svg[svg.find("</style>").unwrap()..];
        assert!(!drawing.contains("NaN"), "{of:?}: {drawing}");
        assert!(!drawing.contains("inf"), "{of:?}: {drawing}");
        for (left, right, y, text) in texts(svg) {
            assert!(left > 0.0 && right < WIDTH, "{of:?}: {text}");
            assert!(y > 0.0 && y < height, "{of:?}: {text}");
        }
        for (x, y) in lines(svg).into_iter().flatten() {
            assert!((0.0..WIDTH).contains(&x), "{of:?}: {x}");
            assert!((0.0..height).contains(&y), "{of:?}: {y}");
        }
    }

    #[test]
    fn higher_values_are_higher_up_and_later_ones_to_the_right() {
        let svg = chart(&[&[(20.0, 50.0), (0.0, 0.0), (10.0, 100.0)]]).to_string();
        let line = &lines(&svg)[0];
        assert_eq!(line.len(), 3, "{svg}");
        let (start, top, end) = (line[0], line[1], line[2]);
        assert!((top.0 - f64::midpoint(start.0, end.0)).abs() < 0.11);
        assert!((end.1 - f64::midpoint(start.1, top.1)).abs() < 0.11);
        assert!(start.0 < end.0 && top.1 < start.1);
        assert!((start.1 - top.1 - PLOT).abs() < 0.11, "all of the height");
    }

    #[test]
    fn axes_say_what_they_count_and_that_they_are_logarithmic() {
        let mut chart = chart(&[&[(1.0, 1000.0), (30.0, 1e6)]]);
        assert!(says(&chart.to_string(), "messages"));
        assert!(says(&chart.to_string(), "time"));
        assert!(says(&chart.to_string(), "10 s"));
        chart.y = axis("delay", Scale::Log, Unit::Duration);
        assert!(says(&chart.to_string(), "delay (log scale)"));
        assert!(says(&chart.to_string(), "1 ms"));
    }

    #[test]
    fn whatever_is_said_is_escaped() {
        let mut chart = chart(&[&[(0.0, 1.0)], &[(0.0, 2.0)]]);
        let hostile = "</text><script>\u{1b}&\u{0}\u{ffff}\"'";
        (chart.title, chart.subtitle) = (hostile, hostile);
        (chart.x.label, chart.y.label) = (hostile, hostile);
        chart.series[0].name = hostile;
        let svg = chart.to_string();
        assert!(!svg.contains("<script"), "{svg}");
        assert!(!svg.contains(['\u{1b}', '\0', '\u{ffff}']), "{svg}");
        assert!(svg.contains("&lt;/text&gt;&lt;script&gt;\u{fffd}&amp;\u{fffd}\u{fffd}\"'"));
        let opened = svg.matches("<text ").count();
        assert_eq!(opened, svg.matches("</text>").count());
    }

    #[test]
    fn the_document_needs_nothing_but_itself() {
        let svg = chart(&[&[(0.0, 1.0), (1.0, 2.0)]]).to_string();
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" "));
        assert_eq!(svg.matches("://").count(), 1);
        for link in ["href", "url(", "@import", "@font-face", "<script"] {
            assert!(!svg.contains(link), "{link}");
        }
    }

    #[test]
    fn who_does_not_see_it_is_told() {
        let mut chart = chart(&[&[(0.0, 5.0), (30.0, 2500.0), (60.0, 20.0)], &[]]);
        chart.subtitle = "A machine";
        let svg = chart.to_string();
        assert!(svg.contains("role=\"img\""));
        assert!(svg.contains("<title>Title</title>"));
        let told = "<desc>A machine. Line chart of messages against time. first: from 5 at 0 to 20 \
                    at 1 min; lowest 5, highest 2.5k. second: no data.</desc>";
        assert!(svg.contains(told), "{svg}");
    }

    #[test]
    fn no_data_makes_no_chart_but_a_picture_that_says_so() {
        for svg in [chart(&[]).to_string(), chart(&[&[], &[]]).to_string()] {
            assert!(says(&svg, "no data"));
            assert!(!says(&svg, "0"), "ticks would be made up");
            assert_inside(&svg, &"no data");
        }
        assert!(!says(&chart(&[&[(0.0, 0.0)]]).to_string(), "no data"));
    }

    #[test]
    fn no_number_is_too_strange_to_be_drawn_or_left_out() {
        let strange = [
            0.0,
            -0.0,
            0.5,
            1.0,
            5e-324,
            1e15,
            1e99,
            f64::MAX,
            -3.0,
            -1e99,
            f64::NAN,
            f64::INFINITY,
        ];
        let pairs = strange.map(|one| strange.map(|two| (one, two)));
        for (one, two) in pairs.into_iter().flatten() {
            let mut chart = chart(&[&[(one, two)], &[(one, two), (two, one), (0.5, 0.5)]]);
            for (scale, unit) in scales_and_units() {
                (chart.x.scale, chart.x.unit) = (scale, unit);
                for scale in SCALES {
                    (chart.y.scale, chart.y.unit) = (scale, unit);
                    assert_inside(&chart.to_string(), &chart);
                }
            }
        }
    }

    #[test]
    fn a_single_point_is_seen() {
        let svg = chart(&[&[(5.0, 5.0)]]).to_string();
        assert_eq!(attributes(&svg, "<path class=\"mark", "d").len(), 1);
        assert!(lines(&svg).is_empty());
    }

    #[test]
    fn lines_differ_in_more_than_colour() {
        let points: &[_] = &[(0.0, 1.0), (1.0, 2.0)];
        let svg = chart(&[points; 4]).to_string();
        let mut lines = attributes(&svg, "<polyline", "class");
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(
            lines,
            ["line l0 d0", "line l1 d1", "line l2 d2", "line l3 d3"]
        );
        for dashes in [".d1{", ".d2{", ".d3{"] {
            assert!(STYLE.contains(dashes));
        }
        let marks = attributes(&svg, "<path class=\"mark", "d");
        let shape = |mark: &&str| mark[mark.find('m').unwrap()..].to_owned();
        let mut shapes: Vec<_> = marks[..4].iter().map(shape).collect();
        shapes.sort();
        shapes.dedup();
        assert_eq!(shapes.len(), 4);
    }

    #[test]
    fn lines_that_end_together_have_labels_apart_beside_the_plot() {
        for end in [0.0, 50.0, 100.0] {
            let line: &[_] = &[(0.0, 0.0), (5.0, 100.0), (10.0, end)];
            let svg = chart(&[line; 4]).to_string();
            let names = ["first", "second", "third", "fourth"];
            let mut heights = Vec::new();
            for (_, _, y, text) in texts(&svg) {
                if names.contains(&&text[..]) {
                    heights.push(y);
                }
            }
            heights.sort_by(f64::total_cmp);
            assert_eq!(heights.len(), 4);
            for pair in heights.windows(2) {
                assert!(pair[1] - pair[0] > LABEL, "{heights:?}");
            }
            let line = &lines(&svg)[0];
            let (bottom, top) = (line[0].1, line[1].1);
            assert!(heights[0] > top, "{heights:?}");
            assert!(heights[3] < bottom + LABEL / 2.0, "{heights:?}");
        }
    }

    #[test]
    fn a_label_is_at_the_end_of_its_line() {
        let svg = chart(&[&[(0.0, 10.0), (9.0, 80.0)], &[(0.0, 90.0), (9.0, 20.0)]]).to_string();
        let ends: Vec<_> = lines(&svg).iter().map(|line| line[1].1).collect();
        let heights = texts(&svg);
        let of = |name| heights.iter().find(|text| text.3 == name).unwrap().2;
        // The last is drawn first.
        assert!((of("second") - ends[0]).abs() < 6.0);
        assert!((of("first") - ends[1]).abs() < 6.0);
    }

    #[test]
    fn one_line_needs_no_label() {
        let svg = chart(&[&[(0.0, 10.0), (9.0, 80.0)]]).to_string();
        assert!(!says(&svg, "first"));
    }

    #[test]
    fn long_texts_stay_inside_and_all_of_the_subtitle_is_there() {
        let words = "chatloop load 127.0.0.1:5050 --members 5000 ".repeat(9);
        let word = "W".repeat(300);
        for long in [&words[..], &word] {
            let mut chart = chart(&[&[(0.0, 1.0)], &[(0.0, 2.0)]]);
            (chart.title, chart.subtitle) = (long, long);
            (chart.x.label, chart.y.label) = (long, long);
            chart.series[1].name = long;
            let svg = chart.to_string();
            assert_inside(&svg, &long);
            let all: String = texts(&svg).into_iter().map(|text| text.3).collect();
            let letters = |text: &str| text.replace(' ', "");
            assert!(letters(&all).contains(&letters(long).repeat(2)), "{svg}");
        }
    }

    #[test]
    fn ticks_leave_each_other_room() {
        for (scale, unit) in scales_and_units() {
            for most in [1.0, 7.0, 61.0, 999.0, 86_400.0, 12_345_678.0, 1e9, 9.9e12] {
                let value = |at: f64| match scale {
                    Scale::Percentile => 1.0 - 1.0 / (at * most).max(1.0),
                    Scale::Linear | Scale::Log => at * most,
                };
                let mut chart =
                    chart(&[&[(value(0.0), 1.0), (value(0.01), 1.0), (value(1.0), 1.0)]]);
                (chart.x.scale, chart.x.unit) = (scale, unit);
                let svg = chart.to_string();
                assert_inside(&svg, &chart);
                let texts = texts(&svg);
                let foot = texts.iter().map(|text| text.2).fold(0.0, f64::max) - 24.0;
                let ticks: Vec<_> = texts
                    .iter()
                    .filter(|text| (text.2 - foot).abs() < 0.2)
                    .collect();
                assert!(ticks.len() >= 2, "{scale:?} {unit:?} {most}: {svg}");
                for pair in ticks.windows(2) {
                    assert!(
                        pair[0].1 + 5.0 < pair[1].0,
                        "{scale:?} {unit:?} {most}: {pair:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_long_line_is_thinned_out_but_for_its_extremes() {
        let height = |second: u32| match second {
            31_415 => 100.0,
            57_721 => 0.0,
            _ => 40.0 + f64::from(second * 7919 % 20),
        };
        let points: Vec<_> = (0..100_000)
            .map(|second| (f64::from(second), height(second)))
            .collect();
        let svg = chart(&[&points]).to_string();
        let line = &lines(&svg)[0];
        assert!(line.len() <= PLENTY + 100, "{}", line.len());
        assert!(svg.len() < 16_384, "{}", svg.len());
        assert!(line.is_sorted_by(|a, b| a.0 <= b.0));
        let heights = || line.iter().map(|point| point.1);
        let spread = heights().fold(0.0, f64::max) - heights().fold(f64::MAX, f64::min);
        assert!((spread - PLOT).abs() < 0.2, "both the spike and the dip");
    }

    #[test]
    fn a_thinned_line_begins_and_ends_where_it_did() {
        // Neither of its ends is an extreme of its surroundings.
        let height = |at: i32| f64::from((at * 7 + 20) % 50);
        let points: Vec<_> = (0..5000)
            .map(|at| (f64::from(at) / 10.0, height(at)))
            .collect();
        let kept = thinned(points.clone());
        assert!(kept.len() < 600, "{}", kept.len());
        assert_eq!(kept.first(), points.first());
        assert_eq!(kept.last(), points.last());
    }

    #[test]
    fn a_line_that_is_short_enough_keeps_all_its_points() {
        let points: Vec<_> = (0..700).map(|at| (f64::from(at) / 100.0, 1.0)).collect();
        assert_eq!(thinned(points.clone()), points);
    }

    #[test]
    fn there_is_one_colour_for_the_light_and_one_for_the_dark() {
        let (light, dark) = STYLE
            .split_once("@media(prefers-color-scheme:dark){")
            .unwrap();
        let painted = |rules: &str| -> Vec<String> {
            let rules = rules.split('}').filter(|rule| rule.contains('#'));
            rules
                .map(|rule| rule.split('{').next().unwrap().to_owned())
                .collect()
        };
        assert_eq!(painted(light).len(), 14, "{:?}", painted(light));
        assert_eq!(painted(light).len(), painted(dark).len());
        for rule in painted(light) {
            assert!(painted(dark).contains(&rule), "{rule}");
        }
    }
}
