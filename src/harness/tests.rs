//! Collecting and reporting; whole runs are tested through the program.

use super::*;

fn outcome(name: &str, result: Result<End, String>) -> Outcome {
    Outcome {
        name: name.into(),
        result,
        failed_case: None,
        stats: Stats { insns: 12_345, ..Stats::default() },
        operations: None,
        elapsed: Duration::from_millis(10),
        console: b"before\r\nlast words <&>\x1b[0m\n".to_vec(),
    }
}

#[test]
fn folders_give_their_elf_files_and_named_files_whatever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let sub = folder.path().join("sub");
    std::fs::create_dir(&sub).unwrap();
    std::fs::write(sub.join("b"), b"\x7fELF rest").unwrap();
    std::fs::write(sub.join("a"), b"\x7fELF").unwrap();
    std::fs::write(folder.path().join("a.dump"), b"text").unwrap();
    std::fs::write(folder.path().join("tiny"), b"\x7f").unwrap();
    let dump = folder.path().join("a.dump");
    let missing = folder.path().join("missing");
    let found = collect(&[folder.path(), &dump, &missing]);
    let names: Vec<&str> = found.cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["sub/a", "sub/b", dump.to_str().unwrap()]);
    assert_eq!(found.problems.len(), 1);
    assert!(found.problems[0].contains("missing"));
}

#[test]
fn only_pass_and_poweroff_count_as_passed() {
    for (end, passed) in [
        (End::Pass, true),
        (End::PowerOff, true),
        (End::Reset, false),
        (End::Fail(3), false),
        (End::TimeLimit, false),
        (End::Quit, false),
        (End::Died("x".into()), false),
    ] {
        assert_eq!(outcome("t", Ok(end.clone())).passed(), passed, "{end:?}");
    }
    assert!(!outcome("t", Err("wrong file".into())).passed());
}

#[test]
fn the_table_names_the_failed_case_and_shows_the_console() {
    let text = table(&[outcome("good", Ok(End::Pass)), outcome("bad", Ok(End::Fail(7)))]);
    assert!(text.contains("12 345"), "{text}");
    assert!(text.contains("bad: case 7\n"), "{text}");
    assert!(text.contains("    last words <&>[0m\n"), "control characters are left out: {text}");
    assert!(text.ends_with("1 of 2 passed, 1 failed"), "{text}");
}

#[test]
fn exports_are_well_formed() {
    let outcomes = [
        outcome("good", Ok(End::Pass)),
        outcome("bad", Ok(End::Fail(7))),
        outcome("odd", Err("no ELF".into())),
    ];
    let xml = junit(&outcomes, Duration::from_secs(1)).unwrap();
    assert!(
        xml.contains("tests=\"3\"")
            && xml.contains("failures=\"1\"")
            && xml.contains("errors=\"1\""),
        "{xml}"
    );
    assert!(xml.contains("&lt;&amp;&gt;") && !xml.contains('\x1b'), "{xml}");
    let value: serde_json::Value =
        serde_json::from_str(&json(&outcomes, Duration::from_secs(1)).unwrap()).unwrap();
    assert_eq!(value["passed"], 1);
    assert_eq!(value["tests"][1]["case"], 7);
    assert_eq!(value["tests"][2]["result"], "error");
}

#[test]
fn signatures_stay_in_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = signature_path(folder.path(), "../../etc/x").unwrap();
    assert_eq!(path, folder.path().join("etc/x.signature"));
    let path = signature_path(folder.path(), "/abs/rv64.elf").unwrap();
    assert_eq!(path, folder.path().join("abs/rv64.elf.signature"));
}
