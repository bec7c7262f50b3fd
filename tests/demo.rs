//! `capctl demo` is a self-check; here it checks itself, with curl and without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::process::Command;

fn demo(path: &str) -> String {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_capctl"));
    command.arg("demo").env_clear().env("PATH", path).env("HOME", elsewhere.path()).env("NO_PROXY", "*");
    let output = command.output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0, "nothing is left behind");
    shown
}

#[test]
fn it_fits_one_screen_and_leaves_nothing_behind() {
    let shown = demo(&std::env::var("PATH").unwrap());
    assert!(shown.lines().count() <= 45, "{shown}");
    let wide = shown.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None);
    assert!(!shown.contains('\u{1b}'), "no colour but on a terminal");
    assert!(!shown.contains('✗'), "{shown}");
}

#[test]
fn it_says_so_where_there_is_no_curl_and_goes_on() {
    let nowhere = tempfile::tempdir().unwrap();
    let shown = demo(nowhere.path().to_str().unwrap());
    assert!(shown.contains("there is no curl here"), "{shown}");
}
