//! A comparison as JSON.

use serde::Serialize;

use super::{Comparison, Run};

#[derive(Serialize)]
struct Json<'a> {
    guest: &'a str,
    setting: &'a [String],
    columns: Vec<JsonColumn<'a>>,
    phases: Vec<JsonPhase<'a>>,
    geometric_means: Vec<JsonMean>,
    notes: &'a [String],
    problems: Vec<String>,
}

#[derive(Serialize)]
struct JsonColumn<'a> {
    name: &'a str,
    runs: Vec<JsonRun<'a>>,
}

#[derive(Serialize)]
struct JsonRun<'a> {
    phases: Vec<JsonTime<'a>>,
    /// Seconds of CPU time.
    whole_run: Option<f64>,
    elapsed_seconds: f64,
    problems: &'a [String],
    report: Option<&'a serde_json::Value>,
}

/// Seconds of CPU time, in the guest's order.
#[derive(Serialize)]
struct JsonTime<'a> {
    name: &'a str,
    seconds: f64,
}

#[derive(Serialize)]
struct JsonPhase<'a> {
    name: &'a str,
    columns: Vec<JsonCell>,
}

/// Seconds of CPU time; all `null` where no run has the phase.
#[derive(Serialize)]
struct JsonCell {
    median: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    /// Multiple of the first column.
    ratio: Option<f64>,
}

#[derive(Serialize)]
struct JsonMean {
    group: String,
    phases: usize,
    /// Multiples of the first column.
    ratios: Vec<Option<f64>>,
}

/// JSON.
///
/// # Errors
/// What the serialiser answers.
pub fn json(comparison: &Comparison) -> serde_json::Result<String> {
    let columns = comparison.columns.iter().map(|column| JsonColumn {
        name: &column.name,
        runs: column.runs.iter().map(JsonRun::from).collect(),
    });
    let cell = |column, phase: &str| {
        let spread = comparison.spread(column, phase);
        JsonCell {
            median: spread.map(|spread| spread.median),
            min: spread.map(|spread| spread.min),
            max: spread.map(|spread| spread.max),
            ratio: comparison.ratio(column, phase),
        }
    };
    let phases = comparison.phases().into_iter().map(|name| JsonPhase {
        name,
        columns: (0..comparison.columns.len()).map(|column| cell(column, name)).collect(),
    });
    let means = comparison.means().into_iter().map(|mean| JsonMean {
        group: mean.group,
        phases: mean.phases,
        ratios: mean.columns.iter().map(|(ratio, _)| *ratio).collect(),
    });
    let mut text = serde_json::to_string_pretty(&Json {
        guest: &comparison.guest,
        setting: &comparison.setting,
        columns: columns.collect(),
        phases: phases.collect(),
        geometric_means: means.collect(),
        notes: &comparison.notes,
        problems: comparison.problems(),
    })?;
    text.push('\n');
    Ok(text)
}

impl<'a> From<&'a Run> for JsonRun<'a> {
    fn from(run: &'a Run) -> Self {
        let Run { phases, whole, elapsed, problems, report } = run;
        JsonRun {
            phases: phases.iter().map(|(name, time)| JsonTime { name, seconds: *time }).collect(),
            whole_run: *whole,
            elapsed_seconds: *elapsed,
            problems,
            report: report.as_ref(),
        }
    }
}
