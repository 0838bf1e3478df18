//! The chart: bars for the flood, both families.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use crate::{machine::Machine, table::Table};

/// Colours of IPv4 and IPv6.
const COLORS: [RGBColor; 2] = [RGBColor(0x1f, 0x6f, 0xb4), RGBColor(0xe0, 0x8a, 0x1e)];

/// Draws the medians of two columns of the flood's table, with lines from the minimum to the
/// maximum.
pub(crate) fn draw(table: &Table, file: &Path, machine: &Machine) -> Result<()> {
    let count = table.rows.len();
    let rates = |row: usize| [0, 4].map(|column| table.rows[row].1[column].as_ref());
    let most = (0..count)
        .flat_map(rates)
        .flatten()
        .map(|cell| cell.most)
        .fold(1.0, f64::max);
    let height = 110 + 44 * u32::try_from(count)?;
    let root = SVGBackend::new(file, (900, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let caption = "Mpps that a node takes of a flood (blue: IPv4, orange: IPv6)";
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(210)
        .build_cartesian_2d(0.0..most * 1.05, 0.0..count as f64)?;
    // The first row is at the top, each one unit high.
    let place = |row: usize| (count - 1 - row) as f64;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .x_desc(machine.to_string())
        .draw()?;
    for (row, (name, _)) in table.rows.iter().enumerate() {
        for (family, cell) in rates(row).into_iter().flatten().enumerate() {
            let color = COLORS[family];
            let bottom = place(row) + 0.5 - 0.38 * family as f64;
            let middle = bottom + 0.18;
            chart.draw_series([Rectangle::new(
                [(0.0, bottom), (cell.median, bottom + 0.36)],
                color.filled(),
            )])?;
            chart.draw_series([PathElement::new(
                vec![(cell.least, middle), (cell.most, middle)],
                BLACK,
            )])?;
            chart.draw_series([Text::new(
                format!("{:.2}", cell.median),
                (cell.most + most * 0.008, middle + 0.12),
                ("sans-serif", 12),
            )])?;
        }
        let (_, y) = chart.backend_coord(&(0.0, place(row) + 0.62));
        root.draw_text(name, &("sans-serif", 14).into_text_style(&root), (14, y))?;
    }
    root.present()?;
    Ok(())
}
