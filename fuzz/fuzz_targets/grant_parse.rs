//! Any text as a grant: no panic, printing gives the same grant, and its check is one that biscuit reads.
#![no_main]

use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use narrows::capability::{Grant, ParamNames, grants_to_check};

fuzz_target!(|text: &str| {
    let names = ParamNames::any();
    let Ok(grant) = Grant::parse(text, &names) else { return };
    assert_eq!(Grant::parse(&grant.to_string(), &names).as_ref(), Ok(&grant));
    let check = grants_to_check(&[grant]).expect("one grant").expect("one check");
    let check = biscuit_auth::builder::Check::from_str(&check).expect("Datalog");
    assert_eq!(check.queries.len(), 1);
});
