use super::*;

fn run(phases: &[(&str, f64)]) -> Run {
    Run {
        phases: phases.iter().map(|(name, time)| ((*name).to_owned(), *time)).collect(),
        whole: Some(phases.iter().map(|(_, time)| time).sum()),
        ..Run::default()
    }
}

fn comparison(columns: Vec<(&str, Vec<Run>)>) -> Comparison {
    Comparison {
        guest: "guest <1>".into(),
        setting: vec!["1 hart".into()],
        columns: columns
            .into_iter()
            .map(|(name, runs)| Column { name: name.into(), runs })
            .collect(),
        notes: Vec::new(),
    }
}

/// Two columns: the second takes 2 and 8 times as long for integers, half as long for fp.
fn sample() -> Comparison {
    comparison(vec![
        (
            "interp",
            vec![
                run(&[("boot", 1.0), ("int-a", 1.0), ("int-b", 2.0), ("fp-c", 4.0)]),
                run(&[("boot", 3.0), ("int-a", 1.0), ("int-b", 2.0), ("fp-c", 4.0)]),
                run(&[("boot", 8.0), ("int-a", 1.0), ("int-b", 2.0), ("fp-c", 4.0)]),
            ],
        ),
        ("qemu", vec![run(&[("boot", 6.0), ("int-a", 2.0), ("int-b", 16.0), ("fp-c", 2.0)])]),
    ])
}

#[test]
fn medians_and_spreads() {
    assert_eq!(Spread::of(vec![]), None);
    assert_eq!(Spread::of(vec![3.0, 1.0, 8.0]), Some(Spread { median: 3.0, min: 1.0, max: 8.0 }));
    assert_eq!(
        Spread::of(vec![4.0, 1.0, 2.0, 8.0]),
        Some(Spread { median: 3.0, min: 1.0, max: 8.0 })
    );
}

#[test]
fn ratios_are_to_the_first_column_and_means_by_group() {
    let sample = sample();
    assert_eq!(sample.ratio(0, "int-b"), Some(1.0));
    assert_eq!(sample.ratio(1, "boot"), Some(2.0));
    assert_eq!(sample.ratio(1, "int-b"), Some(8.0));
    let means = sample.means();
    let close = |name: &str, expected: f64| {
        let mean = means.iter().find(|mean| mean.group == name).unwrap();
        let (value, count) = mean.columns[1];
        assert!((value.unwrap() - expected).abs() < 1e-12, "{name}: {value:?}");
        assert_eq!(count, mean.phases);
    };
    close("int", 4.0); // sqrt(2 * 8)
    close("fp", 0.5);
    close("all", 2.0); // cbrt(2 * 8 / 2)
    assert_eq!(means.len(), 3, "boot and the whole run are no part of it");
}

#[test]
fn a_phase_that_one_run_lacks_is_kept_and_named() {
    let mut lacking = sample();
    lacking.columns[0].runs[1].phases.retain(|(name, _)| name != "int-a");
    lacking.columns[1].runs[0].phases.retain(|(name, _)| name != "boot");
    lacking.columns[1].runs[0].problems.push("fp-c: status 3".into());
    lacking.columns[1].runs[0].phases.pop();
    assert_eq!(lacking.phases(), ["boot", "int-a", "int-b", "fp-c", "whole run"]);
    assert_eq!(
        lacking.problems(),
        [
            "interp, round 2: int-a: the run has no such phase",
            "qemu, round 1: fp-c: status 3",
            "qemu, round 1: boot: the run has no such phase",
        ]
    );
    assert_eq!(lacking.ratio(1, "fp-c"), None);
    let fp = lacking.means().into_iter().find(|mean| mean.group == "fp").unwrap();
    assert_eq!(fp.columns[1], (None, 0));
    let text = table(&lacking);
    assert!(text.contains("qemu, round 1: fp-c: status 3"), "{text}");
    assert!(text.lines().any(|line| line.starts_with(" fp-c") && line.ends_with("-")), "{text}");
}

#[test]
fn phases_keep_the_order_of_the_guest() {
    let mixed = comparison(vec![
        ("a", vec![run(&[("boot", 1.0), ("two", 1.0)])]),
        ("b", vec![run(&[("boot", 1.0), ("one", 1.0), ("two", 1.0), ("three", 1.0)])]),
    ]);
    assert_eq!(mixed.phases(), ["boot", "one", "two", "three", "whole run"]);
}

#[test]
fn the_table_shows_medians_ranges_and_ratios() {
    let text = table(&sample());
    let line =
        |start: &str| text.lines().find(|line| line.trim_start().starts_with(start)).unwrap();
    let words = |start: &str| line(start).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words("boot"), "boot 3.000 (1.000 to 8.000) 6.000 (6.000 to 6.000) 2.00");
    assert_eq!(words("int-b"), "int-b 2.000 (2.000 to 2.000) 16.000 (16.000 to 16.000) 8.00");
    assert_eq!(words("all"), "all 3 2.00");
    assert!(!text.contains("Problems"), "{text}");
}

#[test]
fn json_holds_every_run_and_the_summary() {
    let json: serde_json::Value = serde_json::from_str(&json(&sample()).unwrap()).unwrap();
    assert_eq!(json["columns"][0]["runs"][2]["phases"][0]["seconds"], 8.0);
    assert_eq!(json["columns"][1]["runs"][0]["whole_run"], 26.0);
    assert_eq!(json["phases"][0]["name"], "boot");
    assert_eq!(json["phases"][0]["columns"][0]["median"], 3.0);
    assert_eq!(json["phases"][0]["columns"][1]["ratio"], 2.0);
    assert_eq!(json["geometric_means"][0]["group"], "int");
    assert_eq!(json["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn the_chart_has_a_bar_for_each_phase_and_column() {
    let chart = svg(&sample());
    // The background, five rows of two bars, and two in the legend.
    assert_eq!(chart.matches("<rect").count(), 13, "{chart}");
    assert_eq!(
        chart.matches("class=\"range\"").count(),
        2,
        "boot and the whole run of interp vary"
    );
    assert!(chart.contains("guest &lt;1&gt;") && !chart.contains("<1>"));
    // From below the shortest (1 s) to at least the longest (26 s): 0.5 to 50.
    assert!(chart.contains(">0.5</text>") && chart.contains(">50</text>"), "{chart}");
    assert!(!chart.contains("NaN") && !chart.contains("inf"));
    let nothing = svg(&comparison(vec![("a", vec![Run::default()])]));
    assert!(!nothing.contains("NaN") && !nothing.contains("inf"), "{nothing}");
}

#[test]
fn a_run_goes_well_if_it_ends_with_the_status_that_says_so() {
    let run = |ends_with: i32, passed| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("exit {ends_with}")]);
        let watch = Watch { timeout: std::time::Duration::from_secs(60), until: None, passed };
        super::run(command, &watch).unwrap()
    };
    assert!(run(1, 1).whole.is_some() && run(0, 0).whole.is_some());
    assert!(run(3, 1).whole.is_none() && !run(3, 1).problems.is_empty());
    assert!(run(0, 1).whole.is_none());
}
