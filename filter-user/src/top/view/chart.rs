//! The rates of the last minutes, as text and as charts.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Color,
    symbols::Marker,
    widgets::{Axis, Block, Chart, Dataset, GraphType},
};

use super::theme::Theme;
use crate::top::{model::Model, rows::short};

/// Both charts, side by side.
pub(super) fn charts(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(area);
    chart(frame, left, model, theme, false);
    chart(frame, right, model, theme, true);
}

/// The rates in one line.
pub(super) fn rates(model: &Model) -> [String; 2] {
    [false, true].map(|passed| rate_of(model, passed))
}

/// The rate of dropped or passed packets, in words.
fn rate_of(model: &Model, passed: bool) -> String {
    if passed {
        let [all, authorized] = [model.rate(&["pass"]), model.authorized_rate()].map(short);
        return format!("passed {all}/s, {authorized}/s of it authorized");
    }
    let [dropped, would] = ["drop", "would_drop"].map(|verdict| model.rate(&[verdict]));
    if model.state == "monitoring" || would > 0.0 {
        format!(
            "dropped {}/s, would drop {}/s",
            short(dropped),
            short(would)
        )
    } else {
        format!("dropped {}/s", short(dropped))
    }
}

/// The last minutes as a chart, with both axes labelled.
fn chart(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme, passed: bool) {
    let now = model.times.last().unwrap_or_default().as_secs_f64();
    let points: Vec<(f64, f64)> = model
        .history
        .iter()
        .map(|point| {
            let rate = if passed { point.passed } else { point.refused };
            (point.at.as_secs_f64() - now, rate)
        })
        .collect();
    let most = points.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let top = ceiling(most);
    let colour = if passed { Color::Green } else { Color::Red };
    let dataset = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(theme.colour(colour))
        .data(&points);
    let span = model.span().as_secs_f64();
    let chart = Chart::new(vec![dataset])
        .block(Block::bordered().title(rate_of(model, passed)))
        .legend_position(None)
        .x_axis(Axis::default().bounds([-span, 0.0]).labels([
            format!("-{} min", span / 60.0),
            before(span / 2.0),
            "now".to_owned(),
        ]))
        .y_axis(
            Axis::default()
                .bounds([0.0, top])
                .labels([0.0, top / 2.0, top].map(short)),
        );
    frame.render_widget(chart, area);
}

/// A time before now.
fn before(seconds: f64) -> String {
    match seconds < 60.0 {
        true => format!("-{seconds} s"),
        false => format!("-{} min", seconds / 60.0),
    }
}

/// The next round number, so that the axis does not move with every packet.
fn ceiling(most: f64) -> f64 {
    let power = 10_f64.powf(most.max(1.0).log10().floor());
    let steps = [1.0, 2.0, 4.0, 10.0].into_iter();
    let mut rounds = steps.map(|step| step * power);
    rounds.find(|round| *round >= most).unwrap_or(most)
}
