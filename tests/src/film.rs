//! Pictures of a terminal: one screen, or a film of many, as an SVG without script.
//!
//! A film is a strip of screens that moves past a window of one screen, by CSS. Equal rows are in
//! the file once.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use vt100::{Cell, Color, Screen};

/// The size of a character, in pixels: of a common font, and `textLength` makes others fit.
const CELL: (f64, f64) = (8.4, 18.0);
/// The distance of the text from the border, in pixels.
const MARGIN: f64 = 12.0;
/// How long the last screen of a film stays.
const LAST: Duration = Duration::from_secs(4);

/// The names of the sixteen colours, in a dark and in a light terminal.
const PALETTE: [(&str, &str); 16] = [
    ("#484f58", "#24292f"),
    ("#ff7b72", "#cf222e"),
    ("#3fb950", "#116329"),
    ("#d29922", "#7d4e00"),
    ("#58a6ff", "#0969da"),
    ("#bc8cff", "#8250df"),
    ("#39c5cf", "#1b7c83"),
    ("#b1bac4", "#6e7781"),
    ("#6e7681", "#57606a"),
    ("#ffa198", "#a40e26"),
    ("#56d364", "#1a7f37"),
    ("#e3b341", "#633c01"),
    ("#79c0ff", "#218bff"),
    ("#d2a8ff", "#a475f9"),
    ("#56d4dd", "#3192aa"),
    ("#f0f6fc", "#24292f"),
];
/// Text and background, in a dark and in a light terminal.
const TEXT: (&str, &str) = ("#e6edf3", "#1f2328");
const BACKGROUND: (&str, &str) = ("#0d1117", "#ffffff");

/// Characters with one look.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Run {
    column: u16,
    columns: u16,
    text: String,
    look: Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Look {
    foreground: Option<Paint>,
    background: Option<Paint>,
    is_bold: bool,
    is_dim: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Paint {
    /// One of the sixteen.
    Palette(u8),
    /// The colours of text and background, exchanged.
    Inverse,
    Rgb(u8, u8, u8),
}

type Row = Vec<Run>;

/// The screens of a terminal in the order of time.
#[derive(Debug)]
pub struct Film {
    columns: u16,
    rows: u16,
    /// When each appeared, and its rows.
    screens: Vec<(Duration, Vec<Row>)>,
}

impl Film {
    /// A film of screens of this size.
    pub const fn new(rows: u16, columns: u16) -> Self {
        Self {
            columns,
            rows,
            screens: Vec::new(),
        }
    }

    /// One screen, without the empty rows at its end.
    pub fn still(screen: &Screen) -> Self {
        let (rows, columns) = screen.size();
        let mut film = Self::new(rows.get(), columns.get());
        film.add(Duration::ZERO, screen);
        let shown = &mut film.screens[0].1;
        while shown.last().is_some_and(Vec::is_empty) {
            shown.pop();
        }
        film.rows = u16::try_from(shown.len()).unwrap_or(rows.get());
        film
    }

    /// Adds what the screen shows at a time since the beginning, if that is new.
    pub fn add(&mut self, time: Duration, screen: &Screen) {
        let rows: Vec<Row> = (0..self.rows)
            .map(|row| runs(screen, row, self.columns))
            .collect();
        if self.screens.last().is_none_or(|(_, last)| *last != rows) {
            self.screens.push((time, rows));
        }
    }

    /// Plays it so many times slower: a screen full of lines takes time to read.
    pub fn slow_down(&mut self, times: u32) {
        for (time, _) in &mut self.screens {
            *time *= times;
        }
    }

    /// How many screens it has.
    pub const fn len(&self) -> usize {
        self.screens.len()
    }

    /// Whether it shows nothing.
    pub const fn is_empty(&self) -> bool {
        self.screens.is_empty()
    }

    /// The SVG. `title` says in words what it shows, for people who do not see it.
    pub fn svg(&self, title: &str) -> String {
        let (wide, high) = (
            f64::from(self.columns) * CELL.0,
            f64::from(self.rows) * CELL.1,
        );
        let (full_wide, full_high) = (wide + 2.0 * MARGIN, high + 2.0 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{full_wide:.0}\" \
             height=\"{full_high:.0}\" xml:space=\"preserve\" viewBox=\"0 0 {full_wide:.1} {full_high:.1}\" role=\"img\">\n\
             <title>{}</title>\n<style>\n{}{}</style>\n\
             <rect class=\"b\" width=\"100%\" height=\"100%\" rx=\"8\"/>\n",
            escape(title),
            style(),
            self.animation(wide),
        );
        let mut known: HashMap<&Row, usize> = HashMap::new();
        // Where no film is played, its last screen is seen.
        let last = self.screens.len().saturating_sub(1) as f64 * wide;
        svg.push_str("<defs>\n");
        for row in self.screens.iter().flat_map(|(_, rows)| rows) {
            let next = known.len();
            if !row.is_empty() && !known.contains_key(row) {
                known.insert(row, next);
                let _ = writeln!(svg, "<g id=\"r{next}\">{}</g>", row_svg(row));
            }
        }
        let _ = write!(
            svg,
            "</defs>\n<svg x=\"{MARGIN}\" y=\"{MARGIN}\" width=\"{wide:.1}\" height=\"{high:.1}\">\n\
             <g class=\"f\" transform=\"translate(-{last:.1})\">\n"
        );
        for (number, (_, rows)) in self.screens.iter().enumerate() {
            let left = number as f64 * wide;
            let _ = write!(svg, "<g transform=\"translate({left:.1})\">");
            for (line, row) in rows.iter().enumerate() {
                if let Some(id) = known.get(row) {
                    let top = line as f64 * CELL.1;
                    let _ = write!(svg, "<use href=\"#r{id}\" y=\"{top:.0}\"/>");
                }
            }
            svg.push_str("</g>\n");
        }
        svg.push_str("</g>\n</svg>\n</svg>\n");
        svg
    }

    /// Moves the strip. People who ask for less motion see the last screen.
    fn animation(&self, wide: f64) -> String {
        let [(begin, _), .., (end, _)] = &*self.screens else {
            return String::new();
        };
        let whole = (*end + LAST - *begin).as_secs_f64();
        let mut frames = String::new();
        for (number, (time, _)) in self.screens.iter().enumerate() {
            let part = (*time - *begin).as_secs_f64() / whole * 100.0;
            let left = number as f64 * wide;
            let _ = write!(frames, "{part:.2}%{{transform:translateX(-{left:.1}px)}}");
        }
        let last = (self.screens.len() - 1) as f64 * wide;
        format!(
            "@keyframes film{{{frames}100%{{transform:translateX(-{last:.1}px)}}}}\n\
             .f{{animation:film {whole:.1}s steps(1,end) infinite}}\n\
             @media (prefers-reduced-motion:reduce){{.f{{animation:none;\
             transform:translateX(-{last:.1}px)}}}}\n"
        )
    }
}

/// The runs of one row.
fn runs(screen: &Screen, row: u16, columns: u16) -> Row {
    let mut runs: Row = Vec::new();
    for column in 0..columns {
        let Some(cell) = screen.cell(row, column) else {
            break;
        };
        let look = look(cell);
        let text = if cell.has_contents() {
            cell.contents()
        } else {
            " "
        };
        match runs.last_mut() {
            Some(run) if run.look == look => {
                run.text.push_str(text);
                run.columns += 1;
            }
            _ => runs.push(Run {
                column,
                columns: 1,
                text: text.to_owned(),
                look,
            }),
        }
    }
    runs.into_iter().flat_map(words).collect()
}

/// A run without its spaces: renderers differ in what they make of several.
fn words(run: Run) -> Row {
    if run.look.background.is_some() {
        return vec![run];
    }
    let mut words: Row = Vec::new();
    let mut column = run.column;
    for word in run.text.split(' ') {
        let columns = u16::try_from(word.chars().count()).expect("a row is short");
        match words.last_mut() {
            _ if word.is_empty() => {}
            Some(last) if last.column + last.columns + 1 == column => {
                last.text = format!("{} {word}", last.text);
                last.columns += columns + 1;
            }
            _ => words.push(Run {
                column,
                columns,
                text: word.to_owned(),
                look: run.look,
            }),
        }
        column += columns + 1;
    }
    words
}

fn look(cell: &Cell) -> Look {
    let paint = |color| match color {
        Color::Default => None,
        Color::Idx(number @ ..16) => Some(Paint::Palette(number)),
        Color::Idx(number) => Some(indexed(number)),
        Color::Rgb(r, g, b) => Some(Paint::Rgb(r, g, b)),
    };
    let (foreground, background) = (paint(cell.fgcolor()), paint(cell.bgcolor()));
    let (foreground, background) = match cell.inverse() {
        true => (
            background.or(Some(Paint::Inverse)),
            foreground.or(Some(Paint::Inverse)),
        ),
        false => (foreground, background),
    };
    Look {
        foreground,
        background,
        is_bold: cell.bold(),
        is_dim: cell.dim(),
    }
}

/// One of the 240 fixed colours of xterm.
fn indexed(number: u8) -> Paint {
    if let Some(grey) = number.checked_sub(232) {
        let level = 8 + 10 * grey;
        return Paint::Rgb(level, level, level);
    }
    let number = number.saturating_sub(16);
    let level = |part: u8| if part == 0 { 0 } else { 55 + 40 * part };
    Paint::Rgb(level(number / 36), level(number / 6 % 6), level(number % 6))
}

fn row_svg(row: &Row) -> String {
    let mut svg = String::new();
    for run in row {
        let left = f64::from(run.column) * CELL.0;
        let wide = f64::from(run.columns) * CELL.0;
        if let Some(paint) = run.look.background {
            let _ = write!(
                svg,
                "<rect x=\"{left:.1}\" width=\"{wide:.1}\" height=\"{}\" {}/>",
                CELL.1,
                filled(paint, 'b')
            );
        }
        if run.text.trim().is_empty() {
            continue;
        }
        let mut attributes = run
            .look
            .foreground
            .map_or_else(String::new, |paint| filled(paint, 't'));
        if run.look.is_bold {
            attributes.push_str(" font-weight=\"bold\"");
        }
        if run.look.is_dim {
            attributes.push_str(" opacity=\".65\"");
        }
        let _ = write!(
            svg,
            "<text x=\"{left:.1}\" y=\"13.5\" textLength=\"{wide:.1}\" {}>{}</text>",
            attributes.trim_start(),
            escape(&run.text)
        );
    }
    svg
}

/// The attribute of a paint. Inverse is the colour of the other of text and background.
fn filled(paint: Paint, what: char) -> String {
    match paint {
        Paint::Palette(number) => format!("class=\"c{number}\""),
        Paint::Inverse if what == 't' => "class=\"b\"".to_owned(),
        Paint::Inverse => "class=\"t\"".to_owned(),
        Paint::Rgb(r, g, b) => format!("fill=\"#{r:02x}{g:02x}{b:02x}\""),
    }
}

/// The colours, for a dark terminal and, where the reader asks for it, for a light one.
fn style() -> String {
    let colours = |light: bool| {
        let of = |(dark, bright): (&str, &str)| if light { bright } else { dark }.to_owned();
        let mut css = format!("text,.t{{fill:{}}}.b{{fill:{}}}", of(TEXT), of(BACKGROUND));
        for (number, pair) in PALETTE.into_iter().enumerate() {
            let _ = write!(css, ".c{number}{{fill:{}}}", of(pair));
        }
        css
    };
    format!(
        "text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;\
         white-space:pre}}\n{}\n@media (prefers-color-scheme:light){{{}}}\n",
        colours(false),
        colours(true)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::{num::NonZero, time::Duration};

    use super::Film;

    fn screen(text: &str) -> vt100::Parser {
        let size = |count| NonZero::new(count).expect("not zero");
        let mut parser = vt100::Parser::new(size(3), size(20), 0);
        parser.process(text.as_bytes());
        parser
    }

    #[test]
    fn a_still_has_its_rows_its_colours_and_no_empty_rows() {
        let parser = screen("$ <a> & b\r\n\x1b[1;32mgood\x1b[m \x1b[7mturned\x1b[m");
        let svg = Film::still(parser.screen()).svg("a & b");
        assert!(svg.contains("<title>a &amp; b</title>"), "{svg}");
        assert!(svg.contains(">$ &lt;a&gt; &amp; b</text>"), "{svg}");
        assert!(
            svg.contains("class=\"c2\" font-weight=\"bold\">good</text>"),
            "{svg}"
        );
        assert!(svg.contains("class=\"b\">turned</text>"), "{svg}");
        // Two rows of 18 and a margin of 12 on each side.
        assert!(svg.contains("height=\"60\""), "{svg}");
        assert!(!svg.contains("@keyframes"), "{svg}");
    }

    #[test]
    fn a_film_has_each_row_once_and_each_screen_at_its_time() {
        let mut film = Film::new(3, 20);
        let mut parser = screen("one\r\n");
        film.add(Duration::from_secs(1), parser.screen());
        film.add(Duration::from_secs(2), parser.screen());
        parser.process(b"two\r\n");
        film.add(Duration::from_secs(3), parser.screen());
        assert_eq!(film.len(), 2);
        let svg = film.svg("film");
        assert_eq!(svg.matches(">one</text>").count(), 1, "{svg}");
        assert_eq!(svg.matches("href=\"#r0\"").count(), 2, "{svg}");
        // Two seconds of six.
        assert!(
            svg.contains("33.33%{transform:translateX(-168.0px)}"),
            "{svg}"
        );
        assert!(svg.contains("prefers-reduced-motion"), "{svg}");
    }
}
