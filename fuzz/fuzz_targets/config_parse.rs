//! Any text as `narrows.toml`: no panic, and what is refused is refused with a reason.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use narrows::config::Config;
use narrows::store::Home;

fuzz_target!(|text: &str| {
    let home = Home::at(Path::new("/nonexistent/narrows")).unwrap();
    match Config::parse(text, &home) {
        Ok(config) => drop(config.check(&[])),
        Err(problems) => assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.message.is_empty())),
    }
});
