//! Outcomes as a table, and the failures at length.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::Outcome;
use crate::machine::spec::End;
use crate::report;

/// Lines of a failed guest's console that are shown.
const CONSOLE_LINES: usize = 12;

/// A row for each outcome, then each failure with the end of its console, then a count.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([
        "name",
        "result",
        "case",
        "instructions",
        "MIPS",
        "time",
        // Where an operation is done over and over: CPU time of one.
        "each",
    ]);
    for column in 3..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for outcome in outcomes {
        let case = match outcome.result {
            Ok(End::Fail(code)) => code.to_string(),
            _ => String::new(),
        };
        table.add_row([
            outcome.name.clone(),
            word(outcome).to_owned(),
            case,
            report::grouped(outcome.stats.insns),
            format!("{:.1}", crate::report::mips(&outcome.stats)),
            format!("{:.2} s", outcome.elapsed.as_secs_f64()),
            outcome.each().map_or(String::new(), |ns| format!("{ns:.1} ns")),
        ]);
    }
    let mut text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    for outcome in outcomes.iter().filter(|outcome| !outcome.passed()) {
        text.push_str(&format!("\n{}: {}\n", outcome.name, outcome.reason()));
        text.push_str(&console_tail(&outcome.console));
    }
    text.push('\n');
    text.push_str(&summary(outcomes));
    text
}

/// How many passed.
pub(super) fn summary(outcomes: &[Outcome]) -> String {
    let passed = outcomes.iter().filter(|outcome| outcome.passed()).count();
    format!("{passed} of {} passed, {} failed", outcomes.len(), outcomes.len() - passed)
}

/// The result as one word.
pub(super) fn word(outcome: &Outcome) -> &'static str {
    match &outcome.result {
        Ok(_) if outcome.passed() => "pass",
        Ok(End::InsnLimit) => "limit",
        Ok(End::TimeLimit) => "timeout",
        Ok(end) => report::kind(end),
        Err(_) => "error",
    }
}

/// The last lines of a console, printable.
fn console_tail(console: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(console)
        .chars()
        .filter(|c| *c == '\n' || *c == '\t' || !c.is_control())
        .collect();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES)..]
        .iter()
        .map(|line| format!("    {line}\n"))
        .collect()
}
