//! Any request target: stripping never panics, changes nothing the second time, and injection leaves one slot.
#![no_main]

use http::HeaderMap;
use http::uri::PathAndQuery;
use libfuzzer_sys::fuzz_target;
use narrows::credential::{Injection, Injector, Secret, Slots};

fuzz_target!(|bytes: &[u8]| {
    let Ok(sent) = PathAndQuery::try_from(bytes) else { return };
    let injection = Injection::query("key").unwrap();
    let slots = Slots::new(Some(&injection), &[]);
    let (mut headers, mut target) = (HeaderMap::new(), sent.clone());
    let stripped = slots.strip(&mut headers, &mut target).unwrap();
    assert_eq!(sent.path(), target.path());
    let mut again = target.clone();
    assert!(!slots.strip(&mut headers, &mut again).unwrap().foreign());
    assert_eq!(again, target);
    let injector = Injector::new(&injection, &Secret::new(b"canary-1".to_vec()).unwrap()).unwrap();
    if injector.apply(&stripped, &mut headers, &mut target).is_ok() {
        assert!(target.query().unwrap().ends_with("key=canary-1"));
    }
});
