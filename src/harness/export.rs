//! Outcomes for other programs: JUnit's XML and JSON.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use super::Outcome;
use super::table::word;
use crate::machine::spec::End;

/// JUnit XML.
///
/// # Errors
/// When the names cannot be written as XML.
pub fn junit(
    outcomes: &[Outcome],
    elapsed: Duration,
) -> Result<String, quick_junit::SerializeError> {
    let mut suite = TestSuite::new("mimic test");
    for outcome in outcomes {
        let mut status = if outcome.passed() {
            TestCaseStatus::success()
        } else {
            let kind = if outcome.result.is_ok() {
                NonSuccessKind::Failure
            } else {
                NonSuccessKind::Error
            };
            TestCaseStatus::non_success(kind)
        };
        if !outcome.passed() {
            status.set_message(outcome.reason()).set_type(word(outcome));
        }
        let mut case = TestCase::new(&outcome.name, status);
        case.set_time(outcome.elapsed);
        if !outcome.console.is_empty() {
            case.set_system_out_lossy(&outcome.console);
        }
        suite.add_test_case(case);
    }
    suite.set_time(elapsed);
    let mut report = Report::new("mimic");
    report.set_time(elapsed);
    report.add_test_suite(suite);
    report.to_string()
}

#[derive(Serialize)]
struct Json<'a> {
    passed: usize,
    failed: usize,
    elapsed_seconds: f64,
    tests: Vec<JsonOutcome<'a>>,
}

#[derive(Serialize)]
struct JsonOutcome<'a> {
    name: &'a str,
    passed: bool,
    result: &'static str,
    reason: Option<String>,
    case: Option<u64>,
    elapsed_seconds: f64,
    instructions: u64,
    mips: f64,
    nanoseconds_each: Option<f64>,
    console: String,
}

/// JSON.
///
/// # Errors
/// What the serialiser answers.
pub fn json(outcomes: &[Outcome], elapsed: Duration) -> serde_json::Result<String> {
    let passed = outcomes.iter().filter(|outcome| outcome.passed()).count();
    let tests = outcomes
        .iter()
        .map(|outcome| JsonOutcome {
            name: &outcome.name,
            passed: outcome.passed(),
            result: word(outcome),
            reason: (!outcome.passed()).then(|| outcome.reason()),
            case: match outcome.result {
                Ok(End::Fail(code)) => Some(code),
                _ => None,
            },
            elapsed_seconds: outcome.elapsed.as_secs_f64(),
            instructions: outcome.stats.insns,
            mips: crate::report::mips(&outcome.stats),
            nanoseconds_each: outcome.each(),
            console: String::from_utf8_lossy(&outcome.console).into_owned(),
        })
        .collect();
    serde_json::to_string_pretty(&Json {
        passed,
        failed: outcomes.len() - passed,
        elapsed_seconds: elapsed.as_secs_f64(),
        tests,
    })
}
