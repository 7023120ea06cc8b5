//! A line chart as one SVG document, for a browser or a README.
//!
//! `plotters` draws it: grid, axes, lines and markers. What the library has no notion of is here: the
//! percentile axis, ticks at round times and sizes, headings of several lines, and the reader's choice of
//! light or dark. The library writes colours as attributes of each element, and a style sheet may
//! override those. So the document carries rules that select elements by their light colour and give
//! them the dark one.
//!
//! The document needs no script, font or link. Its lines differ in colour, dashes and markers, for
//! readers who cannot tell the colours apart.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Write as _};

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use textwrap::wrap;

use crate::units::Unit;

/// The points of a line, from left to right.
pub(super) type Curve = Vec<(f64, f64)>;

/// A line chart; displayed, it is the text of an SVG document. Its texts have no control characters.
#[derive(Clone, Debug)]
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// Machine, date, command.
    pub(super) subtitle: &'a str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// The lines with their names, which are shown at the ends of the lines if there are several. Two
    /// of them look different.
    pub(super) series: Vec<(&'a str, Curve)>,
}

/// What one of the two coordinates means: its label, its scale, and the unit of the values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis(pub(super) &'static str, pub(super) Scale, pub(super) Unit);

/// How an axis spaces its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Evenly, from 0.
    Linear,
    /// Each power of ten as far from the last. Values that are not above 0 are drawn at the lower end.
    Log,
    /// For shares from 0 to 1: 90 %, 99 % and 99.9 % are equally far apart. The whole would be
    /// infinitely far away, so it is placed after the last nine and marked "max".
    Percentile,
}

/// The library places everything on whole units. A tenth of a pixel is fine enough for smooth lines.
const PX: i32 = 10;
const WIDTH: i32 = 800 * PX;
const PADDING: i32 = 24 * PX;
const PLOT_HEIGHT: i32 = 300 * PX;
const TITLE_SIZE: i32 = 19 * PX;
const TEXT_SIZE: i32 = 12 * PX;
const NAME_SIZE: i32 = 13 * PX;
const LINE_HEIGHT: i32 = 17 * PX;
/// A longer name would leave too little room for the plot.
const MAX_NAME_COLUMNS: usize = 26;
/// The part of a line that is drawn before its name. It begins and ends with a whole dash.
const SAMPLE: i32 = 30 * PX;
/// A line of at most so many points has a marker at each, a longer one only at its last.
const MAX_MARKERS: usize = 32;
const MAX_TICKS: f64 = 8.0;
/// The length of an axis, in the units in which the library places values.
const SPAN: i32 = 1_000_000;
/// The ticks of more nines would touch.
const MAX_NINES: f64 = 6.0;

/// Each colour on a light ground and on a dark one.
type Colour = (u32, u32);
const GROUND: Colour = (0xff_ff_ff, 0x0d_11_17);
const BORDER: Colour = (0xd1_d9_e0, 0x30_36_3d);
const GRID: Colour = (0xe8_ec_f0, 0x22_29_30);
const BASE: Colour = (0x8c_95_9f, 0x65_6c_76);
const HEADING: Colour = (0x1f_23_28, 0xf0_f6_fc);
const TEXT: Colour = (0x59_63_6e, 0x9a_a4_af);
/// Blue and orange: distinct by hue for most colour-blind readers, with enough contrast for text, since
/// the names have these colours too.
const LINES: [Colour; 2] = [(0x0b_63_b8, 0x58_a6_ff), (0xb8_4a_00, 0xff_9d_4d)];
const FONTS: &str = "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',\
                     Arial,sans-serif;font-variant-numeric:tabular-nums}polyline{stroke-linejoin:round}";

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_points = self.series.iter().any(|(_, points)| !points.is_empty());
        let label = match self.y {
            _ if !has_points => "no data".to_owned(),
            Axis(label, Scale::Log, _) => format!("{label} (log scale)"),
            Axis(label, ..) => label.to_owned(),
        };
        let (mut heading, mut top) = (String::new(), PADDING - 5 * PX);
        for (text, size, leading, (weight, colour)) in [
            (self.title, TITLE_SIZE, 24 * PX, ("bold", HEADING)),
            (self.subtitle, TEXT_SIZE, LINE_HEIGHT, ("normal", TEXT)),
            (&label, TEXT_SIZE, 30 * PX, ("normal", TEXT)),
        ] {
            let columns = (WIDTH - 2 * PADDING) / width("x", size);
            for line in wrap(text, columns as usize) {
                top += leading;
                let (text, colour) = (xml(&line), hex(colour.0));
                writeln!(
                    heading,
                    "<text x=\"{PADDING}\" y=\"{top}\" font-size=\"{size}\" font-weight=\"{weight}\" \
                     fill=\"{colour}\">\n{text}\n</text>"
                )?;
            }
        }
        top += 18 * PX;
        let height = top + PLOT_HEIGHT + 44 * PX + PADDING;
        let mut svg = String::new();
        self.draw(&mut svg, top, height).map_err(|_| fmt::Error)?;
        // The library's opening tag has no role, and its size is not in pixels.
        let (_, drawing) = svg.split_once('\n').unwrap_or_default();
        write!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
             viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n\
             <style>{}</style>\n<rect x=\"5\" y=\"5\" width=\"{}\" height=\"{}\" rx=\"100\" \
             fill=\"{}\" stroke=\"{}\" stroke-width=\"10\"/>\n{heading}{drawing}",
            WIDTH / PX,
            height / PX,
            xml(self.title),
            xml(&self.description()),
            style(),
            WIDTH - 10,
            height - 10,
            hex(GROUND.0),
            hex(BORDER.0)
        )
    }
}

impl Chart<'_> {
    fn draw(&self, svg: &mut String, top: i32, height: i32) -> Result<(), Box<dyn Error>> {
        let area = SVGBackend::with_string(svg, (WIDTH as u32, height as u32)).into_drawing_area();
        let points = self.series.iter().flat_map(|(_, points)| points);
        let (xs, ys): (Vec<_>, Vec<_>) = points.copied().unzip();
        let (x, y) = (Ruler::new(self.x, &xs), Ruler::new(self.y, &ys));
        let names = self.series.iter().map(|(name, _)| shortened(name));
        let names: Vec<_> = names.filter(|_| self.series.len() > 1).collect();
        let ticks = y.ticks.values().map(|text| width(text, TEXT_SIZE)).max();
        let left = ticks.unwrap_or(0) + 10 * PX;
        let widest = names.iter().map(|name| width(name, NAME_SIZE)).max();
        let right = widest.map_or(48 * PX, |name| name * 11 / 10 + PADDING + SAMPLE + 25 * PX);
        let mut chart = ChartBuilder::on(&area)
            .margin_top(top)
            .margin_left(PADDING)
            .margin_right(right)
            .margin_bottom(PADDING)
            .x_label_area_size(44 * PX)
            .y_label_area_size(left)
            .build_cartesian_2d(
                (0..SPAN).with_key_points(x.ticks.keys().copied().collect()),
                (0..SPAN).with_key_points(y.ticks.keys().copied().collect()),
            )?;
        chart
            .configure_mesh()
            .max_light_lines(1)
            .bold_line_style(rgb(GRID).stroke_width(PX as u32))
            .light_line_style(TRANSPARENT)
            .axis_style(rgb(BASE).stroke_width(PX as u32))
            .set_all_tick_mark_size(4 * PX)
            .label_style(font(TEXT_SIZE, FontStyle::Normal).color(&rgb(TEXT)))
            .x_label_formatter(&|tick| x.ticks[tick].clone())
            .y_label_formatter(&|tick| y.ticks[tick].clone())
            .x_desc(self.x.0)
            .draw()?;
        let mut ends = Vec::new();
        // The first line is the subject of the picture, and is drawn over the others.
        for (index, (_, points)) in self.series.iter().enumerate().rev() {
            let place = |point: &(f64, f64)| (x.place(point.0), y.place(point.1));
            let points: Vec<_> = points.iter().map(place).collect();
            let Some(last) = points.last() else { continue };
            ends.push((chart.backend_coord(last).1, index));
            let colour = rgb(LINES[index % LINES.len()]);
            let marked = match points.len() {
                0..=MAX_MARKERS => &points[..],
                _ => &[*last],
            };
            let (marked, fill) = (marked.iter().copied(), colour.filled());
            match index % LINES.len() {
                0 => chart.draw_series(marked.map(|at| Circle::new(at, 42, fill)))?,
                _ => chart.draw_series(marked.map(|at| TriangleMarker::new(at, 52, fill)))?,
            };
            chart.draw_series([PathElement::new(points, colour.stroke_width(22))])?;
        }
        // Each name is at the end of its line, or below the name before it.
        ends.sort_unstable();
        let (mut free, x) = (top, WIDTH - right + 17 * PX);
        for (y, index) in ends.into_iter().filter(|&(_, index)| index < names.len()) {
            let y = y.max(free);
            free = y + LINE_HEIGHT;
            let colour = rgb(LINES[index % LINES.len()]);
            let sample = [(x, y), (x + SAMPLE, y)];
            area.draw(&PathElement::new(sample, colour.stroke_width(22)))?;
            let font = font(NAME_SIZE, FontStyle::Bold).color(&colour);
            let style = font.pos(Pos::new(HPos::Left, VPos::Center));
            let at = (x + SAMPLE + 8 * PX, y);
            area.draw(&Text::new(&names[index][..], at, style))?;
        }
        area.present()?;
        Ok(())
    }

    /// Describes the picture for readers who cannot see it.
    fn description(&self) -> String {
        let (Axis(x, _, x_unit), Axis(y, _, y_unit)) = (self.x, self.y);
        let lines = self.series.iter().map(|(name, points)| {
            let (Some(first), Some(last)) = (points.first(), points.last()) else {
                return format!(" {name}: no data.");
            };
            let lowest = points.iter().map(|point| point.1).fold(first.1, f64::min);
            let highest = points.iter().map(|point| point.1).fold(first.1, f64::max);
            let ends = [first, last].map(|&(x, y)| (y_unit.text(y), x_unit.tick(x)));
            let [(from, start), (to, end)] = ends;
            let [lowest, highest] = [lowest, highest].map(|value| y_unit.text(value));
            format!(
                " {name}: from {from} at {start} to {to} at {end}; lowest {lowest}, highest {highest}."
            )
        });
        let lines: String = lines.collect();
        format!("{}. Line chart of {y} against {x}.{lines}", self.subtitle)
    }
}

/// An axis laid out for the values that it must show.
struct Ruler {
    scale: Scale,
    /// The heights of the ends.
    low: f64,
    high: f64,
    /// The texts of the ticks by their places.
    ticks: BTreeMap<i32, String>,
}

impl Ruler {
    /// Lays out an axis. A linear or logarithmic one ends at a tick.
    fn new(Axis(_, scale, unit): Axis, values: &[f64]) -> Self {
        let highest = values.iter().copied().fold(0.0, f64::max);
        let mut ticks = Vec::new();
        match scale {
            Scale::Linear => {
                let highest = if highest > 0.0 { highest } else { 1.0 };
                let step = unit.step(highest / MAX_TICKS);
                // A step that is exceeded by a rounding error is not exceeded.
                let steps = (highest / step - 1e-9).ceil() as u32;
                ticks.extend((0..=steps).map(|number| f64::from(number) * step));
            }
            Scale::Log => {
                let positive = values.iter().copied().filter(|&value| value > 0.0);
                let lowest = positive.fold(highest.max(1.0), f64::min);
                let digits: &[f64] = match highest / lowest {
                    300.0.. => &[1.0],
                    _ => &[1.0, 2.0, 5.0],
                };
                let mut decade = lowest.log10().floor() as i32;
                while ticks.last().is_none_or(|&last| last <= highest) {
                    ticks.extend(digits.iter().map(|digit| digit * 10_f64.powi(decade)));
                    decade += 1;
                }
                ticks.drain(..ticks.iter().rposition(|&tick| tick <= lowest).unwrap_or(0));
                let end = ticks.iter().skip(1).position(|&tick| tick >= highest);
                ticks.truncate(end.map_or(ticks.len(), |end| end + 2));
            }
            Scale::Percentile => {
                let nines = values.iter().map(|&share| scale.height(share));
                let finite = nines.filter(|nines| nines.is_finite());
                let most = finite.fold(1.0, f64::max).min(MAX_NINES);
                // With many nines, 0 % would touch 50 %.
                ticks.extend([0.0, 0.5].into_iter().skip(usize::from(most > 4.0)));
                ticks.extend((1..=(most + 1e-9) as i32).map(|nine| 1.0 - 0.1_f64.powi(nine)));
                ticks.push(1.0 - 0.1_f64.powf(most + 1.0));
            }
        }
        let first = if scale == Scale::Log { ticks[0] } else { 0.0 };
        let last = ticks[ticks.len() - 1];
        let ruler = Self {
            scale,
            low: scale.height(first),
            high: scale.height(last),
            ticks: BTreeMap::new(),
        };
        let ticks = ticks.into_iter().filter(|_| !values.is_empty());
        let ticks = ticks.map(|tick| {
            let is_whole = scale == Scale::Percentile && tick >= last;
            let text = if is_whole { "max" } else { &unit.tick(tick) };
            (ruler.place(tick), text.to_owned())
        });
        let ticks = ticks.collect();
        Self { ticks, ..ruler }
    }

    /// Where a value is, from 0 to [`SPAN`].
    fn place(&self, value: f64) -> i32 {
        let height = self.scale.height(value).clamp(self.low, self.high);
        ((height - self.low) / (self.high - self.low) * f64::from(SPAN)).round() as i32
    }
}

impl Scale {
    /// Where a value is in a measure in which the scale is even. May be infinite.
    fn height(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
            // The number of nines.
            Self::Percentile => -(1.0 - value).max(0.0).log10(),
        }
    }
}

fn font(size: i32, style: FontStyle) -> FontDesc<'static> {
    // The library divides the size of a font by 1.24 for SVG.
    ("sans-serif", f64::from(size) * 1.24, style).into_font()
}

fn rgb(colour: Colour) -> RGBColor {
    let [_, red, green, blue] = colour.0.to_be_bytes();
    RGBColor(red, green, blue)
}

/// A colour as the library writes it.
fn hex(colour: u32) -> String {
    format!("#{colour:06X}")
}

/// Returns the style sheet: fonts, the dashes of the second line, and the dark colours.
fn style() -> String {
    let colours = [GROUND, BORDER, GRID, BASE, HEADING, TEXT];
    let dark = colours.into_iter().chain(LINES).flat_map(|(light, dark)| {
        ["fill", "stroke"].map(|name| format!("[{name}='{}']{{{name}:{}}}", hex(light), hex(dark)))
    });
    let (dashed, dark) = (hex(LINES[1].0), dark.collect::<String>());
    format!(
        "{FONTS}polyline[stroke='{dashed}']{{stroke-dasharray:80 30}}\
         @media(prefers-color-scheme:dark){{{dark}}}"
    )
}

/// About how wide a text is. The fonts are the reader's, so the widths can only be estimated: rather
/// too wide than too narrow.
fn width(text: &str, size: i32) -> i32 {
    text.chars().map(|_| size * 58 / 100).sum()
}

/// The beginning of a name, as far as there is room for it.
fn shortened(name: &str) -> String {
    match &wrap(name, MAX_NAME_COLUMNS)[..] {
        [first, _, ..] => format!("{first}…"),
        _ => name.to_owned(),
    }
}

/// Escapes markup.
fn xml(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALES: [(Scale, Unit); 5] = [
        (Scale::Linear, Unit::Count),
        (Scale::Linear, Unit::Seconds),
        (Scale::Linear, Unit::Bytes),
        (Scale::Log, Unit::Nanoseconds),
        (Scale::Percentile, Unit::Share),
    ];

    const fn axis(label: &'static str, (scale, unit): (Scale, Unit)) -> Axis {
        Axis(label, scale, unit)
    }

    /// A chart of counts by the second, with a line named by its number for each of some points.
    fn chart(series: &[&[(f64, f64)]]) -> Chart<'static> {
        let names = ["first", "second", "third", "fourth"].into_iter();
        let series = names
            .zip(series)
            .map(|(name, points)| (name, points.to_vec()));
        Chart {
            title: "Title",
            subtitle: "",
            x: axis("time", SCALES[1]),
            y: axis("messages", SCALES[0]),
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

    fn points(list: &str) -> Vec<(i32, i32)> {
        let pair = |pair: &str| {
            let (x, y) = pair.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        list.split_whitespace().map(pair).collect()
    }

    /// The points of the lines, without axes and the samples of the labels.
    fn lines(svg: &str) -> Vec<Vec<(i32, i32)>> {
        let all = attributes(svg, "<polyline", "points")
            .into_iter()
            .map(points);
        let strokes = attributes(svg, "<polyline", "stroke-width");
        let lines = all.zip(strokes).filter(|&(_, stroke)| stroke == "22");
        let lines: Vec<_> = lines.map(|(line, _)| line).collect();
        let is_sample = |line: &Vec<(i32, i32)>| line.len() == 2 && line[1].0 - line[0].0 == SAMPLE;
        lines.into_iter().filter(|line| !is_sample(line)).collect()
    }

    /// Where each text begins and ends, its height, and its words.
    fn texts(svg: &str) -> Vec<(i32, i32, i32, String)> {
        let mut rows = svg.lines();
        let mut texts = Vec::new();
        while let Some(row) = rows.next() {
            if row.starts_with("<text") {
                let text = rows.next().unwrap();
                let number = |name| attributes(row, "<text", name)[0].parse::<f64>().unwrap();
                let width = width(text, number("font-size").round() as i32);
                let x = number("x") as i32;
                let left = match attributes(row, "<text", "text-anchor")[..] {
                    ["end"] => x - width,
                    ["middle"] => x - width / 2,
                    _ => x,
                };
                texts.push((left, left + width, number("y") as i32, text.to_owned()));
            }
        }
        texts
    }

    fn has_text(svg: &str, wanted: &str) -> bool {
        texts(svg).iter().any(|(_, _, _, text)| text == wanted)
    }

    /// Checks that everything is inside the picture.
    fn assert_inside(svg: &str, of: &dyn fmt::Debug) {
        let (_, size) = svg.split_once("viewBox=\"0 0 8000 ").unwrap();
        let height: i32 = size.split('"').next().unwrap().parse().unwrap();
        for (left, right, y, text) in texts(svg) {
            assert!(left > 0 && right < WIDTH, "{of:?}: {text}");
            assert!(y > 0 && y < height, "{of:?}: {text}");
        }
        for (x, y) in lines(svg).into_iter().flatten() {
            assert!(
                (0..WIDTH).contains(&x) && (0..height).contains(&y),
                "{of:?}"
            );
        }
    }

    #[test]
    fn line_rises_with_its_values_and_goes_from_left_to_right() {
        let svg = chart(&[&[(0.0, 0.0), (10.0, 100.0), (20.0, 50.0)]]).to_string();
        let [start, top, end] = lines(&svg)[0][..] else {
            panic!("{svg}");
        };
        assert!((top.0 - i32::midpoint(start.0, end.0)).abs() <= 1);
        assert!((end.1 - i32::midpoint(start.1, top.1)).abs() <= 1);
        assert!(
            (start.1 - top.1 - PLOT_HEIGHT).abs() <= 2 * PX,
            "all of the height"
        );
    }

    #[test]
    fn linear_axis_ends_at_a_tick_after_the_last_value() {
        let svg = chart(&[&[(0.1, 3.0), (0.983, 97.0)]]).to_string();
        for tick in ["0", "200ms", "1s", "100"] {
            assert!(has_text(&svg, tick), "{tick}: {svg}");
        }
    }

    #[test]
    fn logarithmic_axis_is_named_and_has_ticks_at_ones_twos_and_fives() {
        let mut chart = chart(&[&[(1.0, 60e3), (30.0, 3e6)]]);
        chart.y = axis("delay", SCALES[3]);
        let svg = chart.to_string();
        for text in ["delay (log scale)", "50 µs", "100 µs", "1 ms", "5 ms"] {
            assert!(has_text(&svg, text), "{text}: {svg}");
        }
        assert!(
            !has_text(&svg, "20 µs") && !has_text(&svg, "10 ms"),
            "{svg}"
        );
    }

    #[test]
    fn percentile_axis_has_equal_room_for_each_nine_and_for_the_maximum() {
        let ruler = Ruler::new(axis("share", SCALES[4]), &[0.5, 0.999, 1.0]);
        let places = [0.0, 0.9, 0.99, 0.999, 1.0].map(|share| ruler.place(share));
        assert_eq!(places, [0, SPAN / 4, SPAN / 2, SPAN / 4 * 3, SPAN]);
        let texts: Vec<_> = ruler.ticks.into_values().collect();
        assert_eq!(texts, ["0", "50 %", "90 %", "99 %", "99.9 %", "max"]);
    }

    #[test]
    fn markup_is_escaped() {
        let mut chart = chart(&[&[(0.0, 1.0)], &[(0.0, 2.0)]]);
        let hostile = "</text><script>&\"'";
        (chart.title, chart.subtitle) = (hostile, hostile);
        chart.series[0].0 = hostile;
        let svg = chart.to_string();
        assert!(!svg.contains("<script"), "{svg}");
        assert!(svg.contains("<title>&lt;/text&gt;&lt;script&gt;&amp;\"'"));
        assert_eq!(
            svg.matches("<text ").count(),
            svg.matches("</text>").count()
        );
    }

    #[test]
    fn document_refers_to_nothing_outside_itself() {
        let svg = chart(&[&[(0.0, 1.0), (1.0, 2.0)]]).to_string();
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" "));
        assert_eq!(svg.matches("://").count(), 1);
        for link in ["href", "url(", "@import", "@font-face", "<script"] {
            assert!(!svg.contains(link), "{link}");
        }
    }

    #[test]
    fn description_has_the_ends_and_extremes_of_each_line() {
        let mut chart = chart(&[&[(0.0, 5.0), (30.0, 2500.0), (60.0, 20.0)], &[]]);
        chart.subtitle = "A machine";
        let svg = chart.to_string();
        assert!(svg.contains("role=\"img\""));
        let description = "<desc>A machine. Line chart of messages against time. first: from 5 at 0 \
                           to 20 at 1m; lowest 5, highest 2,500. second: no data.</desc>";
        assert!(svg.contains(description), "{svg}");
    }

    #[test]
    fn chart_without_data_has_a_notice_and_no_ticks() {
        for svg in [chart(&[]).to_string(), chart(&[&[], &[]]).to_string()] {
            assert!(has_text(&svg, "no data"), "{svg}");
            assert!(!has_text(&svg, "0"), "{svg}");
            assert_inside(&svg, &"no data");
        }
        assert!(!has_text(&chart(&[&[(0.0, 0.0)]]).to_string(), "no data"));
    }

    #[test]
    fn extreme_numbers_are_drawn_inside() {
        let extreme = [0.0, 0.5, 1.0, 5e-324, 1e12];
        for (one, two) in extreme
            .into_iter()
            .flat_map(|one| extreme.map(|two| (one, two)))
        {
            for (x, y) in SCALES.into_iter().flat_map(|x| SCALES.map(|y| (x, y))) {
                let mut chart = chart(&[&[(one, two)], &[(one, two), (two, one), (0.5, 0.5)]]);
                (chart.x, chart.y) = (axis("x", x), axis("y", y));
                assert_inside(&chart.to_string(), &chart);
            }
        }
    }

    #[test]
    fn lines_differ_in_colours_dashes_and_markers() {
        let points: &[_] = &[(0.0, 1.0), (1.0, 2.0)];
        let svg = chart(&[points; 2]).to_string();
        for (light, dark) in LINES {
            assert!(svg.contains(&format!("stroke=\"{}\"", hex(light))), "{svg}");
            let rule = format!("[stroke='{}']{{stroke:{}}}", hex(light), hex(dark));
            assert!(svg.contains(&rule), "{svg}");
        }
        assert!(svg.contains(&format!(
            "[stroke='{}']{{stroke-dasharray:80 30}}",
            hex(LINES[1].0)
        )));
        for marker in ["<circle ", "<polygon "] {
            assert_eq!(svg.matches(marker).count(), 2, "{svg}");
        }
    }

    #[test]
    fn names_are_at_the_ends_of_their_lines_and_apart() {
        for end in [0.0, 50.0, 100.0] {
            let line: &[_] = &[(0.0, 0.0), (5.0, 100.0), (10.0, end)];
            let svg = chart(&[line; 2]).to_string();
            let mut names = texts(&svg);
            names.retain(|text| ["first", "second"].contains(&&text.3[..]));
            names.sort_by_key(|name| name.2);
            assert!(names[1].2 - names[0].2 >= LINE_HEIGHT, "{names:?}");
            let y = lines(&svg)[0][2].1;
            assert!((names[0].2 - y).abs() < LINE_HEIGHT, "{svg}");
        }
        assert!(!has_text(&chart(&[&[(0.0, 1.0)]]).to_string(), "first"));
    }

    #[test]
    fn long_headings_are_wrapped_and_long_names_shortened() {
        let words = "chatloop load 127.0.0.1:5050 --members 5000 ".repeat(9);
        for long in [&words[..], &"W".repeat(300)] {
            let mut chart = chart(&[&[(0.0, 1.0)], &[(0.0, 2.0)]]);
            (chart.title, chart.subtitle) = (long, long);
            chart.series[1].0 = long;
            let svg = chart.to_string();
            assert_inside(&svg, &long);
            let all: String = texts(&svg).into_iter().map(|text| text.3).collect();
            let letters = |text: &str| text.replace(' ', "");
            assert!(letters(&all).contains(&letters(long).repeat(2)), "{svg}");
            assert!(
                texts(&svg).iter().any(|text| text.3.ends_with('…')),
                "{svg}"
            );
        }
    }

    #[test]
    fn ticks_leave_each_other_room() {
        for (scale, unit) in SCALES {
            for most in [1.0, 7.0, 61.0, 999.0, 86_400.0, 12_345_678.0, 1e9, 9.9e12] {
                let value = |at: f64| match scale {
                    Scale::Percentile => 1.0 - 1.0 / (at * most).max(1.0),
                    Scale::Linear | Scale::Log => at * most,
                };
                let mut chart = chart(&[&[(value(0.01), 1.0), (value(1.0), 1.0)], &[]]);
                chart.x = axis("x", (scale, unit));
                let svg = chart.to_string();
                assert_inside(&svg, &chart);
                let texts = texts(&svg);
                // Below the ticks there is only the label of the axis.
                let above = texts.iter().filter(|text| text.3 != "x");
                let row = above.map(|text| text.2).max().unwrap();
                let mut ticks: Vec<_> = texts.iter().filter(|text| text.2 == row).collect();
                ticks.sort();
                assert!(ticks.len() >= 2, "{scale:?} {unit:?} {most}: {svg}");
                for pair in ticks.windows(2) {
                    assert!(pair[0].1 + 2 * PX < pair[1].0, "{unit:?} {most}: {pair:?}");
                }
            }
        }
    }
}
