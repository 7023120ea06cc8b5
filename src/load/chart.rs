//! A line chart as one SVG document, for a browser or a README.
//!
//! `plotters` draws it: grid, axes, lines and markers. What the library has no notion of is here: the
//! percentile axis, ticks at round times and sizes, and the reader's choice of light or dark. The
//! library writes colours as attributes of each element, and a style sheet may override those. So the
//! document carries rules that select elements by their light colour and give them the dark one.
//!
//! The document needs no script, font or link. Its lines differ in colour, dashes and markers, for
//! readers who cannot tell the colours apart.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::iter;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::units::Unit;

/// A line chart; displayed, it is the text of an SVG document.
#[derive(Clone, Debug)]
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// Machine, date, command. It is wrapped, and may be empty.
    pub(super) subtitle: &'a str,
    pub(super) x: Axis<'a>,
    pub(super) y: Axis<'a>,
    /// The lines, at most four of which look different.
    pub(super) series: Vec<Series<'a>>,
}

/// What one of the two coordinates means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis<'a> {
    pub(super) label: &'a str,
    pub(super) scale: Scale,
    pub(super) unit: Unit,
}

pub(super) const fn axis(label: &str, scale: Scale, unit: Unit) -> Axis<'_> {
    Axis { label, scale, unit }
}

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

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Series<'a> {
    /// Shown at the line's end if there are several lines.
    pub(super) name: &'a str,
    /// In the units of the axes, in any order.
    pub(super) points: Vec<(f64, f64)>,
}

/// The library places everything on whole units. A tenth of a pixel is fine enough for smooth lines.
const PX: i32 = 10;
const WIDTH: i32 = 800 * PX;
const PADDING: i32 = 24 * PX;
const PLOT_HEIGHT: i32 = 300 * PX;
const TITLE_SIZE: i32 = 19 * PX;
const TEXT_SIZE: i32 = 12 * PX;
const LABEL_SIZE: i32 = 13 * PX;
const LINE_HEIGHT: i32 = 17 * PX;
/// A wider label would leave too little room for the plot.
const MAX_LABEL_WIDTH: i32 = 220 * PX;
/// The part of a line that is drawn before its label. It begins and ends with a whole dash.
const SAMPLE: i32 = 30 * PX;
/// A line of at most so many points has a marker at each, a longer one only at its last.
const MAX_MARKERS: usize = 32;
const MAX_TICKS: f64 = 8.0;
/// More nines are lost in the rounding of `1 - share`.
const MAX_NINES: f64 = 9.0;
/// Larger values are not drawn.
const MAX_VALUE: f64 = 1e15;

/// Each colour on a light ground and on a dark one.
type Colour = (u32, u32);
const GROUND: Colour = (0xff_ff_ff, 0x0d_11_17);
const BORDER: Colour = (0xd1_d9_e0, 0x30_36_3d);
const GRID: Colour = (0xe8_ec_f0, 0x22_29_30);
const BASE: Colour = (0x8c_95_9f, 0x65_6c_76);
const HEADING: Colour = (0x1f_23_28, 0xf0_f6_fc);
const TEXT: Colour = (0x59_63_6e, 0x9a_a4_af);
/// Blue, orange, black and green: distinct by hue or lightness for most colour-blind readers, with
/// enough contrast for text, since the labels have these colours too.
const LINES: [Colour; 4] = [
    (0x0b_63_b8, 0x58_a6_ff),
    (0xb8_4a_00, 0xff_9d_4d),
    (0x24_29_2f, 0xe6_ed_f3),
    (0x00_79_6b, 0x3f_c9_a3),
];
const DASHES: [&str; 4] = ["none", "80 30", "30 24", "100 30 40 30"];
/// The corners of the markers around their middle: octagon (nearly a circle), square, triangle,
/// diamond.
const MARKERS: [&[(i32, i32)]; 4] = [
    &[
        (42, 17),
        (17, 42),
        (-17, 42),
        (-42, 17),
        (-42, -17),
        (-17, -42),
        (17, -42),
        (42, -17),
    ],
    &[(-36, -36), (36, -36), (36, 36), (-36, 36)],
    &[(0, -48), (46, 34), (-46, 34)],
    &[(0, -50), (50, 0), (0, 50), (-50, 0)],
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, Box<dyn Error>>;

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = self.heading();
        let top = heading.last().map_or(0, |line| line.y) + 18 * PX;
        let height = top + PLOT_HEIGHT + 44 * PX + PADDING;
        let mut svg = String::new();
        self.draw(&mut svg, &heading, top, height)
            .map_err(|_| fmt::Error)?;
        // The library's opening tag has no role, and its size is not in pixels.
        let (_, drawing) = svg.split_once('\n').unwrap_or_default();
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
             viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">",
            WIDTH / PX,
            height / PX
        )?;
        writeln!(f, "<title>{}</title>", xml(self.title))?;
        writeln!(f, "<desc>{}</desc>", xml(&self.description()))?;
        writeln!(f, "<style>{}</style>", style())?;
        writeln!(
            f,
            "<rect x=\"5\" y=\"5\" width=\"{}\" height=\"{}\" rx=\"100\" fill=\"{}\" stroke=\"{}\" \
             stroke-width=\"10\"/>",
            WIDTH - 10,
            height - 10,
            hex(GROUND.0),
            hex(BORDER.0)
        )?;
        f.write_str(drawing)
    }
}

/// A line of text above the plot.
struct Heading {
    text: String,
    size: i32,
    y: i32,
}

impl Chart<'_> {
    fn heading(&self) -> Vec<Heading> {
        let room = WIDTH - 2 * PADDING;
        let lines = |text, size, leading| {
            let lines = wrapped(text, size, room).into_iter();
            lines.map(move |text| (text, size, leading))
        };
        let mut y = PADDING - 5 * PX;
        lines(self.title, TITLE_SIZE, 24 * PX)
            .chain(lines(self.subtitle, TEXT_SIZE, LINE_HEIGHT))
            .chain([(shortened(&self.y.title(), room), TEXT_SIZE, 30 * PX)])
            .map(|(text, size, leading)| {
                y += leading;
                Heading { text, size, y }
            })
            .collect()
    }

    fn draw(&self, svg: &mut String, heading: &[Heading], top: i32, height: i32) -> Drawn {
        let area = SVGBackend::with_string(svg, (WIDTH as u32, height as u32)).into_drawing_area();
        for Heading { text, size, y } in heading {
            let (style, colour) = match *size {
                TITLE_SIZE => (FontStyle::Bold, HEADING),
                _ => (FontStyle::Normal, TEXT),
            };
            write_text(
                &area,
                text,
                (PADDING, *y),
                (*size, style),
                (HPos::Left, colour),
            )?;
        }
        let points = self.points();
        let (xs, ys): (Vec<_>, Vec<_>) = points.iter().flatten().copied().unzip();
        let names = self.names();
        let widest_name = names.iter().map(|name| width(name, LABEL_SIZE)).max();
        let right = widest_name.map_or(48 * PX, |name| name * 11 / 10 + PADDING + SAMPLE + 25 * PX);
        let y_ruler = Ruler::new(&self.y, &ys, PLOT_HEIGHT);
        let left = y_ruler.widest_tick() + 10 * PX;
        let room = WIDTH - PADDING - left - right;
        let x_ruler = Ruler::new(&self.x, &xs, room);
        let mut chart = ChartBuilder::on(&area)
            .margin_top(top)
            .margin_left(PADDING)
            .margin_right(right)
            .margin_bottom(PADDING)
            .x_label_area_size(44 * PX)
            .y_label_area_size(left)
            .build_cartesian_2d(x_ruler, y_ruler)?;
        let small = ("sans-serif", font(TEXT_SIZE)).into_font();
        chart
            .configure_mesh()
            .max_light_lines(1)
            .bold_line_style(rgb(GRID).stroke_width(PX as u32))
            .light_line_style(TRANSPARENT)
            .axis_style(rgb(BASE).stroke_width(PX as u32))
            .set_all_tick_mark_size(4 * PX)
            .label_style(small.color(&rgb(TEXT)))
            .x_desc(shortened(self.x.label, room))
            .draw()?;
        if xs.is_empty() {
            let at = (WIDTH / 2, top + PLOT_HEIGHT / 2);
            let small = (TEXT_SIZE, FontStyle::Normal);
            write_text(&area, "no data", at, small, (HPos::Center, TEXT))?;
        }
        let lines = points.iter().map(|points| {
            let pixels = points.iter().map(|point| chart.backend_coord(point));
            pixels.collect::<Vec<_>>()
        });
        let lines: Vec<_> = lines.collect();
        // The first line is the subject of the picture, and is drawn over the others.
        for (series, line) in lines.iter().enumerate().rev() {
            let from = match line.len() {
                0..=MAX_MARKERS => 0,
                len => len - 1,
            };
            draw_line(&area, series, line, &line[from..])?;
        }
        let x = WIDTH - right + 17 * PX;
        for (series, y) in label_heights(&lines, top, top + PLOT_HEIGHT) {
            if let Some(name) = names.get(series) {
                let sample = [(x, y), (x + SAMPLE, y)];
                draw_line(&area, series, &sample, &[(x + SAMPLE / 2, y)])?;
                let bold = (LABEL_SIZE, FontStyle::Bold);
                let at = (x + SAMPLE + 8 * PX, y + 9 * PX / 2);
                write_text(&area, name, at, bold, (HPos::Left, colour(series)))?;
            }
        }
        area.present()?;
        Ok(())
    }

    /// Describes the picture for readers who cannot see it.
    fn description(&self) -> String {
        let (x, y) = (&self.x, &self.y);
        let mut text = format!("Line chart of {} against {}.", y.label, x.label);
        if !self.subtitle.is_empty() {
            text = format!("{}. {text}", self.subtitle);
        }
        for (series, points) in self.series.iter().zip(self.points()) {
            let heights = || points.iter().map(|point| point.1);
            // Writing to a string does not fail.
            let _ = match (points.first(), points.last()) {
                (Some(first), Some(last)) => write!(
                    text,
                    " {}: from {} at {} to {} at {}; lowest {}, highest {}.",
                    series.name,
                    y.unit.text(first.1),
                    x.unit.tick(first.0),
                    y.unit.text(last.1),
                    x.unit.tick(last.0),
                    y.unit.text(heights().fold(f64::INFINITY, f64::min)),
                    y.unit.text(heights().fold(0.0, f64::max)),
                ),
                _ => write!(text, " {}: no data.", series.name),
            };
        }
        text
    }

    /// The points of each series that can be drawn, from left to right.
    fn points(&self) -> Vec<Vec<(f64, f64)>> {
        let drawable = |value: f64| (0.0..=MAX_VALUE).contains(&value);
        let sorted = |series: &Series<'_>| {
            let points = series.points.iter().copied();
            let mut points: Vec<_> = points
                .filter(|&(x, y)| drawable(x) && drawable(y))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points
        };
        self.series.iter().map(sorted).collect()
    }

    /// The labels of the lines, if there are several.
    fn names(&self) -> Vec<String> {
        let names = self.series.iter();
        let names = names.map(|series| shortened(series.name, MAX_LABEL_WIDTH));
        if self.series.len() > 1 {
            names.collect()
        } else {
            Vec::new()
        }
    }
}

impl Axis<'_> {
    fn title(&self) -> String {
        match self.scale {
            Scale::Log => format!("{} (log scale)", self.label),
            Scale::Linear | Scale::Percentile => self.label.to_owned(),
        }
    }
}

/// An axis laid out for the values that it must show.
struct Ruler {
    scale: Scale,
    unit: Unit,
    /// The heights of the ends, as [`height`] returns them: finite, and `low` below `high`.
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

/// Where a value is in a measure in which the scale is even. May be infinite.
fn height(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
        Scale::Percentile => -(1.0 - value).max(0.0).log10(),
    }
}

impl Ruler {
    /// Lays out an axis that is `room` long. A linear or logarithmic axis ends at a tick.
    fn new(axis: &Axis<'_>, values: &[f64], room: i32) -> Self {
        let &Axis { scale, unit, .. } = axis;
        let highest = values.iter().copied().fold(0.0, f64::max);
        let (ticks, low, high) = match scale {
            Scale::Linear => {
                let highest = if highest > 0.0 { highest } else { 1.0 };
                let step = unit.step(highest / MAX_TICKS);
                // A step that is exceeded by a rounding error is not exceeded.
                let steps = (highest / step - 1e-9).ceil();
                let ticks = (0..=steps as u32).map(|number| f64::from(number) * step);
                (ticks.collect(), 0.0, steps * step)
            }
            Scale::Log => {
                let positive = values.iter().copied().filter(|&value| value > 0.0);
                let lowest = positive.fold(highest.max(1.0), f64::min);
                let first = lowest.log10().floor() as i32;
                let decades = (first..).take_while(|&decade| 10_f64.powi(decade - 1) < highest);
                let rungs = decades
                    .flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(decade)));
                let mut ticks: Vec<f64> = rungs.collect();
                let from = ticks.iter().rposition(|&tick| tick <= lowest).unwrap_or(0);
                let until = ticks.iter().position(|&tick| tick >= highest);
                ticks.truncate(until.map_or(ticks.len(), |last| (last + 1).max(from + 2)));
                ticks.drain(..from);
                let (low, high) = (ticks[0].log10(), ticks[ticks.len() - 1].log10());
                if ticks.len() as f64 > MAX_TICKS {
                    ticks.retain(|tick| (tick.log10() - tick.log10().round()).abs() < 1e-9);
                }
                (ticks, low, high)
            }
            Scale::Percentile => {
                let heights = values.iter().map(|&value| height(scale, value));
                let finite = heights.filter(|height| height.is_finite());
                let nines = finite.fold(1.0, f64::max).min(MAX_NINES);
                let has_whole = highest >= 1.0;
                let whole_nines = 1..=(nines + 1e-9) as i32;
                let ticks = [0.0, 0.5].into_iter();
                let ticks = ticks.chain(whole_nines.map(|nine| 1.0 - 0.1_f64.powi(nine)));
                let ticks = ticks.chain(has_whole.then_some(1.0)).collect();
                (ticks, 0.0, nines + f64::from(u8::from(has_whole)))
            }
        };
        let mut ruler = Self {
            scale,
            unit,
            low,
            high,
            ticks,
        };
        if values.is_empty() {
            ruler.ticks.clear();
        }
        if scale == Scale::Percentile {
            ruler.leave_out_crowded(room);
        }
        ruler
    }

    /// Leaves out ticks whose texts would touch: 0 % before 50 %, and 50 % before 90 %.
    fn leave_out_crowded(&mut self, room: i32) {
        let mut kept: Vec<f64> = Vec::new();
        for &tick in self.ticks.iter().rev() {
            let apart = kept.last().is_none_or(|&next| {
                let texts = width(&self.format_ext(&tick), TEXT_SIZE)
                    + width(&self.format_ext(&next), TEXT_SIZE);
                self.map(&next, (0, room)) - self.map(&tick, (0, room)) > texts / 2 + 8 * PX
            });
            if apart {
                kept.push(tick);
            }
        }
        self.ticks = kept;
    }

    fn widest_tick(&self) -> i32 {
        let texts = self.ticks.iter().map(|tick| self.format_ext(tick));
        texts.map(|text| width(&text, TEXT_SIZE)).max().unwrap_or(0)
    }
}

impl Ranged for Ruler {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (height(self.scale, *value) - self.low) / (self.high - self.low);
        start + (share.clamp(0.0, 1.0) * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The light lines between the ticks are not wanted.
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.ticks.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Ruler {
    fn format_ext(&self, value: &f64) -> String {
        match self.scale {
            Scale::Percentile if *value >= 1.0 => "max".to_owned(),
            _ => self.unit.tick(*value),
        }
    }
}

/// The heights of the labels: those of the lines' ends, moved apart where they would overlap.
fn label_heights(lines: &[Vec<(i32, i32)>], top: i32, bottom: i32) -> Vec<(usize, i32)> {
    let ends = lines.iter().enumerate();
    let ends = ends.filter_map(|(series, line)| Some((series, line.last()?.1)));
    let mut labels: Vec<_> = ends.collect();
    labels.sort_by_key(|label| label.1);
    let mut free = top;
    for (_, y) in &mut labels {
        *y = free.max(*y);
        free = *y + LINE_HEIGHT;
    }
    let mut free = bottom;
    for (_, y) in labels.iter_mut().rev() {
        *y = free.min(*y);
        free = *y - LINE_HEIGHT;
    }
    labels
}

fn draw_line(area: &Area<'_>, series: usize, line: &[(i32, i32)], marked: &[(i32, i32)]) -> Drawn {
    let colour = rgb(colour(series));
    if line.len() > 1 {
        area.draw(&PathElement::new(line, colour.stroke_width(22)))?;
    }
    for &(x, y) in marked {
        let corners = MARKERS[series % MARKERS.len()].iter();
        let corners: Vec<_> = corners
            .map(|&(right, down)| (x + right, y + down))
            .collect();
        area.draw(&Polygon::new(corners, colour.filled()))?;
    }
    Ok(())
}

/// Writes a text with its baseline at this height.
fn write_text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    (size, style): (i32, FontStyle),
    (anchor, colour): (HPos, Colour),
) -> Drawn {
    let font = ("sans-serif", font(size), style).into_font();
    let style = font.color(&rgb(colour)).pos(Pos::new(anchor, VPos::Bottom));
    Ok(area.draw(&Text::new(text, (at.0, at.1 + size / 4), style))?)
}

/// The library's size of a font, which it divides by 1.24 for SVG.
fn font(size: i32) -> f64 {
    f64::from(size) * 1.24
}

fn colour(series: usize) -> Colour {
    LINES[series % LINES.len()]
}

fn rgb(colour: Colour) -> RGBColor {
    let [_, red, green, blue] = colour.0.to_be_bytes();
    RGBColor(red, green, blue)
}

/// A colour as the library writes it.
fn hex(colour: u32) -> String {
    format!("#{colour:06X}")
}

fn style() -> String {
    let mut style =
        "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,\
                     sans-serif;font-variant-numeric:tabular-nums}polyline{stroke-linejoin:round}"
            .to_owned();
    let colours = [GROUND, BORDER, GRID, BASE, HEADING, TEXT];
    let colours = colours.into_iter().chain(LINES);
    let dark = colours.flat_map(|(light, dark)| {
        ["fill", "stroke"].map(|name| format!("[{name}='{}']{{{name}:{}}}", hex(light), hex(dark)))
    });
    let dashes = iter::zip(LINES, DASHES);
    let dashes = dashes
        .map(|((light, _), dash)| format!("[stroke='{}']{{stroke-dasharray:{dash}}}", hex(light)));
    style.extend(dashes);
    let outline = |ground| format!("polygon{{stroke:{};stroke-width:12}}", hex(ground));
    style.push_str(&outline(GROUND.0));
    style.push_str("@media(prefers-color-scheme:dark){");
    style.extend(dark);
    style.push_str(&outline(GROUND.1));
    style + "}"
}

/// About how wide a text is. The fonts are the reader's, so the widths can only be estimated: rather
/// too wide than too narrow.
fn width(text: &str, size: i32) -> i32 {
    text.chars()
        .map(|char| {
            if char.is_ascii() {
                size * 58 / 100
            } else {
                size
            }
        })
        .sum()
}

/// Breaks a text into lines no wider than `room`, between words where possible.
fn wrapped(text: &str, size: i32, room: i32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in clean(text).split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(word, size) + size <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => {
                let chars: Vec<char> = word.chars().collect();
                let longest = (room / size) as usize;
                lines.extend(chars.chunks(longest).map(String::from_iter));
            }
        }
    }
    lines
}

/// The beginning of a text, as far as there is room for it.
fn shortened(text: &str, room: i32) -> String {
    let text = clean(text);
    let longest = room / LABEL_SIZE * 100 / 58;
    match text.char_indices().nth(longest as usize) {
        None => text,
        Some((end, _)) => text[..end].to_owned() + "…",
    }
}

/// Replaces characters that XML cannot contain, not even escaped.
fn clean(text: &str) -> String {
    let is_allowed = |char: char| !char.is_control() && !('\u{fffe}'..='\u{ffff}').contains(&char);
    let chars = text.chars().map(|char| match char {
        '\t' | '\n' | '\r' => ' ',
        _ if is_allowed(char) => char,
        _ => '\u{fffd}',
    });
    chars.collect()
}

fn xml(text: &str) -> String {
    let text = clean(text).replace('&', "&amp;");
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

    fn axis(label: &str, (scale, unit): (Scale, Unit)) -> Axis<'_> {
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

    /// Where each text begins and ends, its height, and what it says.
    fn texts(svg: &str) -> Vec<(i32, i32, i32, String)> {
        let mut rows = svg.lines();
        let mut texts = Vec::new();
        while let Some(row) = rows.next() {
            if row.starts_with("<text") {
                let text = rows.next().unwrap();
                let number = |name| attributes(row, "<text", name)[0].parse::<f64>().unwrap();
                let width = width(text, number("font-size").round() as i32);
                let x = number("x") as i32;
                let left = match attributes(row, "<text", "text-anchor")[0] {
                    "end" => x - width,
                    "middle" => x - width / 2,
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
        let svg = chart(&[&[(20.0, 50.0), (0.0, 0.0), (10.0, 100.0)]]).to_string();
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
        let axis = axis("share", SCALES[4]);
        let ruler = Ruler::new(&axis, &[0.5, 0.999, 1.0], 10_000);
        let position = |value| ruler.map(&value, (0, 4000));
        assert_eq!(
            [0.0, 0.9, 0.99, 0.999, 1.0].map(position),
            [0, 1000, 2000, 3000, 4000]
        );
        let mut texts: Vec<_> = ruler
            .ticks
            .iter()
            .map(|tick| ruler.format_ext(tick))
            .collect();
        texts.reverse();
        assert_eq!(texts, ["0", "50 %", "90 %", "99 %", "99.9 %", "max"]);
    }

    #[test]
    fn hostile_text_is_escaped() {
        let mut chart = chart(&[&[(0.0, 1.0)], &[(0.0, 2.0)]]);
        let hostile = "</text><script>\u{1b}&\u{0}\u{ffff}\"'";
        (chart.title, chart.subtitle) = (hostile, hostile);
        (chart.x.label, chart.y.label) = (hostile, hostile);
        chart.series[0].name = hostile;
        let svg = chart.to_string();
        assert!(!svg.contains("<script"), "{svg}");
        assert!(!svg.contains(['\u{1b}', '\0', '\u{ffff}']), "{svg}");
        assert!(svg.contains("<title>&lt;/text&gt;&lt;script&gt;\u{fffd}&amp;\u{fffd}\u{fffd}\"'"));
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
    fn description_says_what_the_picture_shows() {
        let mut chart = chart(&[&[(0.0, 5.0), (30.0, 2500.0), (60.0, 20.0)], &[]]);
        chart.subtitle = "A machine";
        let svg = chart.to_string();
        assert!(svg.contains("role=\"img\""));
        let description = "<desc>A machine. Line chart of messages against time. first: from 5 at 0 \
                           to 20 at 1m; lowest 5, highest 2,500. second: no data.</desc>";
        assert!(svg.contains(description), "{svg}");
    }

    #[test]
    fn chart_without_data_says_so_and_has_no_ticks() {
        for svg in [chart(&[]).to_string(), chart(&[&[], &[]]).to_string()] {
            assert!(has_text(&svg, "no data"), "{svg}");
            assert!(!has_text(&svg, "0"), "{svg}");
            assert_inside(&svg, &"no data");
        }
        assert!(!has_text(&chart(&[&[(0.0, 0.0)]]).to_string(), "no data"));
    }

    #[test]
    fn strange_numbers_are_drawn_inside_or_left_out() {
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
            f64::NAN,
            f64::INFINITY,
        ];
        for (one, two) in strange
            .into_iter()
            .flat_map(|one| strange.map(|two| (one, two)))
        {
            for (x, y) in SCALES.into_iter().flat_map(|x| SCALES.map(|y| (x, y))) {
                let mut chart = chart(&[&[(one, two)], &[(one, two), (two, one), (0.5, 0.5)]]);
                (chart.x, chart.y) = (axis("x", x), axis("y", y));
                assert_inside(&chart.to_string(), &chart);
            }
        }
    }

    #[test]
    fn lines_differ_in_dashes_and_markers() {
        let points: &[_] = &[(0.0, 1.0), (1.0, 2.0)];
        let svg = chart(&[points; 4]).to_string();
        for (light, dark) in LINES {
            assert!(svg.contains(&format!("stroke=\"{}\"", hex(light))), "{svg}");
            let rule = format!("[stroke='{}']{{stroke:{}}}", hex(light), hex(dark));
            assert!(svg.contains(&rule), "{svg}");
        }
        let corners = attributes(&svg, "<polygon", "points").into_iter();
        let corners: std::collections::BTreeSet<_> =
            corners.map(|list| list.split(' ').count()).collect();
        assert_eq!(corners.len(), 3, "octagon, square or diamond, triangle");
    }

    #[test]
    fn labels_are_at_the_ends_of_their_lines_and_apart() {
        for end in [0.0, 50.0, 100.0] {
            let line: &[_] = &[(0.0, 0.0), (5.0, 100.0), (10.0, end)];
            let svg = chart(&[line; 4]).to_string();
            let labels = texts(&svg).into_iter();
            let mut heights: Vec<_> = labels
                .filter(|text| ["first", "second", "third", "fourth"].contains(&&text.3[..]))
                .map(|text| text.2)
                .collect();
            heights.sort_unstable();
            assert_eq!(heights.len(), 4);
            for pair in heights.windows(2) {
                assert!(pair[1] - pair[0] >= LINE_HEIGHT, "{heights:?}");
            }
            let y = lines(&svg)[0][2].1;
            assert!(
                heights
                    .iter()
                    .any(|height| (height - y).abs() < LINE_HEIGHT),
                "{svg}"
            );
        }
        assert!(!has_text(&chart(&[&[(0.0, 1.0)]]).to_string(), "first"));
    }

    #[test]
    fn long_texts_are_wrapped_or_shortened() {
        let words = "chatloop load 127.0.0.1:5050 --members 5000 ".repeat(9);
        for long in [&words[..], &"W".repeat(300)] {
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
