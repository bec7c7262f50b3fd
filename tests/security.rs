//! SECURITY.md names nothing that is not there: files, and tests in them.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::path::Path;

const PAGE: &str = include_str!("../SECURITY.md");

/// The code spans of a text that are paths of this repository: `FILE` or `FILE::TEST`.
fn named(page: &str) -> Vec<&str> {
    let spans = page.split('`').skip(1).step_by(2);
    let is_path = |span: &&str| {
        let folders = ["src/", "tests/", "docs/", "fuzz/", "benches/", ".ci/"];
        folders.iter().any(|folder| span.starts_with(folder)) || *span == "CHANGELOG.md"
    };
    spans.filter(is_path).collect()
}

/// What is wrong with one of them.
fn fault(name: &str) -> Option<String> {
    let (file, test) = name.split_once("::").map_or((name, None), |(file, test)| (file, Some(test)));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if !path.exists() {
        return Some(format!("there is no {file}"));
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let test = test?;
    let is_head = |line: &str| {
        let line = line.trim_start().trim_start_matches("async ");
        line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(test)).is_some_and(|rest| rest.starts_with('('))
    };
    let Some(head) = lines.iter().position(|line| is_head(line)) else {
        return Some(format!("{file} has no fn {test}"));
    };
    // Attributes stand directly above; those that take several lines too.
    let above = &lines[head.saturating_sub(4)..head];
    let is_test = above.iter().any(|line| line.contains("test]") || line.contains("tokio::test("));
    (!is_test).then(|| format!("{test} in {file} is no test"))
}

#[test]
fn everything_that_the_page_names_is_there() {
    let named = named(PAGE);
    assert!(named.len() > 50, "only {} names were found", named.len());
    let faults: Vec<String> = named.into_iter().filter_map(fault).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_promise_names_a_test_and_every_fuzz_target_has_its_place() {
    for promise in PAGE.split("\n### ").skip(1) {
        let promise = promise.split("\n## ").next().unwrap();
        assert!(!named(promise).is_empty(), "{promise}");
    }
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets")).unwrap() {
        let name = format!("fuzz/fuzz_targets/{}", entry.unwrap().file_name().to_str().unwrap());
        assert!(named(PAGE).contains(&&*name), "{name}");
    }
}

#[test]
fn what_is_not_there_is_found() {
    for (name, wrong) in [
        ("tests/no_such_file.rs", "there is no"),
        ("tests/security.rs::no_such_test", "has no fn"),
        ("tests/security.rs::named", "is no test"),
        ("tests/security.rs::what_is_not_there_is", "has no fn"),
    ] {
        assert!(fault(name).is_some_and(|fault| fault.contains(wrong)), "{name}");
    }
    assert_eq!(fault("tests/security.rs::what_is_not_there_is_found"), None);
}
