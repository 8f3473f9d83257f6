//! A comparison as text.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::{Comparison, Spread};

/// The setting, a row for each phase, geometric means, counters, and what went wrong.
#[must_use]
pub fn table(comparison: &Comparison) -> String {
    let mut text = format!("{}\n", comparison.guest);
    for line in &comparison.setting {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str("\nCPU time in seconds: median (least to greatest), and as a multiple of the first column\n\n");
    text.push_str(&times(comparison));
    let means = means(comparison);
    if !means.is_empty() {
        text.push_str("\nGeometric mean of the multiples\n\n");
        text.push_str(&means);
    }
    let counters = counters(comparison);
    if !counters.is_empty() {
        text.push('\n');
        text.push_str(&counters);
    }
    for note in &comparison.notes {
        text.push_str(&format!("\nNote: {note}\n"));
    }
    let problems = comparison.problems();
    if !problems.is_empty() {
        text.push_str("\nProblems\n");
        for problem in problems {
            text.push_str(&format!("  {problem}\n"));
        }
    }
    text.trim_end().to_owned()
}

fn times(comparison: &Comparison) -> String {
    let several = comparison.columns.iter().any(|column| column.runs.len() > 1);
    let mut header = vec!["phase".to_owned()];
    for (index, column) in comparison.columns.iter().enumerate() {
        header.push(column.name.clone());
        if several {
            header.push(String::new());
        }
        if index > 0 {
            header.push("x".to_owned());
        }
    }
    let rows = comparison.phases().into_iter().map(|phase| {
        let mut row = vec![phase.to_owned()];
        for index in 0..comparison.columns.len() {
            let spread = comparison.spread(index, phase);
            row.push(spread.map_or("-".into(), |spread| format!("{:.3}", spread.median)));
            if several {
                row.push(spread.map_or(String::new(), range));
            }
            if index > 0 {
                row.push(ratio(comparison.ratio(index, phase)));
            }
        }
        row
    });
    render(header, rows)
}

fn means(comparison: &Comparison) -> String {
    if comparison.columns.len() < 2 {
        return String::new();
    }
    let mut header = vec!["group".to_owned(), "phases".to_owned()];
    header.extend(comparison.columns.iter().skip(1).map(|column| column.name.clone()));
    let means = comparison.means();
    let rows = means.iter().map(|mean| {
        let mut row = vec![mean.group.clone(), mean.phases.to_string()];
        row.extend(mean.columns.iter().skip(1).map(|(value, count)| {
            let text = ratio(*value);
            // A mean of fewer phases than the group has says less than it seems to.
            if *count == mean.phases { text } else { format!("{text} ({count} phases)") }
        }));
        row
    });
    if means.is_empty() { String::new() } else { render(header, rows) }
}

/// Counters of the engines that report them, of the last round.
fn counters(comparison: &Comparison) -> String {
    let mut text = String::new();
    for column in &comparison.columns {
        let Some(stats) =
            column.runs.iter().rev().find_map(|run| run.report.as_ref()?.get("stats"))
        else {
            continue;
        };
        if let (Some(insns), Some(mips)) = (stats["instructions"].as_u64(), stats["mips"].as_f64())
        {
            text.push_str(&format!(
                "{}: {} instructions, {mips:.0} MIPS\n",
                column.name,
                crate::report::grouped(insns)
            ));
        }
    }
    text
}

fn render(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    let columns = header.len();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for index in 1..columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn range(spread: Spread) -> String {
    format!("({:.3} to {:.3})", spread.min, spread.max)
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"))
}
