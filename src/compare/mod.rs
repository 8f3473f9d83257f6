//! Comparisons: the same guest on several engines, and on QEMU, by the CPU time of its process.
//!
//! Reading order: `marks` (what a guest says on its console), `child` (one run), `qemu` (its command line), this
//! file (runs to medians, spreads and ratios), then what shows them: `table`, `svg`, `export`.
//!
//! Time is the CPU time, user and system, of the whole process that runs the guest, all of its threads: what a
//! translator does beside the guest counts too. Runs are interleaved, so that a host that grows slower or faster
//! does so for every column.

mod child;
mod export;
mod marks;
mod qemu;
mod svg;
mod table;

pub use child::{Watch, run};
pub use export::json;
pub use qemu::{Kernel, Qemu};
pub use svg::svg;
pub use table::table;

/// The phase from the start of the process to the first mark.
pub const BOOT: &str = "boot";
/// The row of whole runs, from the start of the process to its end.
pub const WHOLE: &str = "whole run";

/// One run of the guest. Times are seconds of CPU time.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Phases in the order in which they began, [`BOOT`] among them.
    pub phases: Vec<(String, f64)>,
    /// The whole run, if it came to its end.
    pub whole: Option<f64>,
    /// Seconds that have passed on the clock.
    pub elapsed: f64,
    /// What went wrong, each with the phase's name where it is known.
    pub problems: Vec<String>,
    /// What the engine reported (`--report`).
    pub report: Option<serde_json::Value>,
}

impl Run {
    fn time(&self, phase: &str) -> Option<f64> {
        if phase == WHOLE {
            return self.whole;
        }
        self.phases.iter().find(|(name, _)| name == phase).map(|(_, time)| *time)
    }
}

/// The runs of one engine.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name in the table.
    pub name: String,
    /// A run for each round.
    pub runs: Vec<Run>,
}

/// Median and extremes of some runs, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
}

impl Spread {
    /// Of these times; `None` without any.
    #[must_use]
    pub fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let (min, max) = (*times.first()?, *times.last()?);
        let middle = times.len() / 2;
        let median = if times.len().is_multiple_of(2) {
            f64::midpoint(times[middle - 1], times[middle])
        } else {
            times[middle]
        };
        Some(Spread { median, min, max })
    }
}

/// A geometric mean of ratios to the first column.
#[derive(Clone, Debug, PartialEq)]
pub struct Mean {
    /// The group, or `all`.
    pub group: String,
    /// For each column the mean, and of how many phases.
    pub columns: Vec<(Option<f64>, usize)>,
    /// Phases of the group.
    pub phases: usize,
}

/// All runs of a guest.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The guest.
    pub guest: String,
    /// What does not differ between the columns, and the host, for people.
    pub setting: Vec<String>,
    /// Engines, in the order asked for; the first is what the others are compared with.
    pub columns: Vec<Column>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

impl Comparison {
    /// The phases of any run, in the guest's order: [`BOOT`] first, [`WHOLE`] last.
    #[must_use]
    pub fn phases(&self) -> Vec<&str> {
        let mut phases: Vec<&str> = Vec::new();
        for run in self.columns.iter().flat_map(|column| &column.runs) {
            // A phase that the runs before lack goes behind the one it follows here.
            let mut place = 0;
            for (name, _) in &run.phases {
                match phases.iter().position(|known| known == name) {
                    Some(index) => place = index + 1,
                    None => {
                        phases.insert(place, name);
                        place += 1;
                    }
                }
            }
        }
        phases.push(WHOLE);
        phases
    }

    /// Forgets phases that are not `wanted`; [`BOOT`] and [`WHOLE`] stay.
    pub fn keep_phases(&mut self, wanted: impl Fn(&str) -> bool) {
        for run in self.columns.iter_mut().flat_map(|column| &mut column.runs) {
            run.phases.retain(|(name, _)| name == BOOT || wanted(name));
        }
    }

    /// The times of a phase in a column; `None` if no run has it.
    #[must_use]
    pub fn spread(&self, column: usize, phase: &str) -> Option<Spread> {
        let runs = &self.columns.get(column)?.runs;
        Spread::of(runs.iter().filter_map(|run| run.time(phase)).collect())
    }

    /// The median of a phase in a column, as a multiple of that in the first: 2 is twice the time.
    #[must_use]
    pub fn ratio(&self, column: usize, phase: &str) -> Option<f64> {
        let (this, first) = (self.spread(column, phase)?, self.spread(0, phase)?);
        (first.median > 0.0).then(|| this.median / first.median)
    }

    /// Geometric means by group and over all phases, without [`BOOT`] and [`WHOLE`].
    #[must_use]
    pub fn means(&self) -> Vec<Mean> {
        let phases = self.phases();
        let phases: Vec<&str> =
            phases.into_iter().filter(|name| ![BOOT, WHOLE].contains(name)).collect();
        let mut groups: Vec<&str> = Vec::new();
        for group in phases.iter().filter_map(|name| group(name)) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let of = |title: &str, members: Vec<&str>| Mean {
            group: title.to_owned(),
            columns: (0..self.columns.len())
                .map(|column| {
                    let ratios: Vec<f64> =
                        members.iter().filter_map(|phase| self.ratio(column, phase)).collect();
                    (geometric_mean(&ratios), ratios.len())
                })
                .collect(),
            phases: members.len(),
        };
        let mut means: Vec<Mean> = groups
            .into_iter()
            .map(|name| {
                of(name, phases.iter().copied().filter(|p| group(p) == Some(name)).collect())
            })
            .collect();
        if !phases.is_empty() {
            means.push(of("all", phases));
        }
        means
    }

    /// Everything that went wrong, by column and round; phases that other runs have and a run lacks among it.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let phases = self.phases();
        let mut problems = Vec::new();
        for column in &self.columns {
            for (round, run) in column.runs.iter().enumerate() {
                let said =
                    |problem: &str| format!("{}, round {}: {problem}", column.name, round + 1);
                problems.extend(run.problems.iter().map(|problem| said(problem)));
                for phase in phases.iter().filter(|phase| **phase != WHOLE) {
                    let told = |problem: &String| problem.starts_with(&format!("{phase}: "));
                    if run.time(phase).is_none() && !run.problems.iter().any(told) {
                        problems.push(said(&format!("{phase}: the run has no such phase")));
                    }
                }
            }
        }
        problems
    }
}

/// The group of a phase: what is before the first `-`.
fn group(phase: &str) -> Option<&str> {
    phase.split_once('-').map(|(group, _)| group)
}

fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
}

#[cfg(test)]
mod tests;
