//! Any bytes as a `Proxy-Authorization` value: no panic, and what parses prints and parses again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows::capability::Credentials;

fuzz_target!(|value: &[u8]| {
    let Ok(credentials) = Credentials::from_proxy_authorization(value) else { return };
    let again = Credentials::parse(&credentials.to_text()).expect("its own text");
    assert_eq!(again.capability, credentials.capability);
    assert_eq!(again.proof.as_bytes(), credentials.proof.as_bytes());
});
