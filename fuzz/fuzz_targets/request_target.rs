//! Any text as an authority: what passes has one spelling, and other readers see the same host and port in it.
#![no_main]

use std::net::IpAddr;

use http::uri::Authority;
use libfuzzer_sys::fuzz_target;
use narrows::request::{Host, Scheme, Target};

fuzz_target!(|text: &str| {
    let explicit = Target::parse(text);
    let Ok(target) = Target::parse_or(text, 443) else {
        assert!(explicit.is_err(), "a port more makes no name");
        return;
    };
    assert!(explicit.is_err() || explicit.as_ref() == Ok(&target));
    assert_eq!(Target::parse(&target.to_string()).as_ref(), Ok(&target));
    assert_eq!(Target::parse_or(&target.authority(Scheme::Https), 443).as_ref(), Ok(&target));
    assert_eq!(Host::parse(target.host.as_str()).as_ref(), Ok(&target.host));

    let other: Authority = text.parse().expect("what passes is an authority");
    assert!(!text.contains('@'), "userinfo");
    assert_eq!(other.port_u16().unwrap_or(443), target.port);
    let name = other.host().to_ascii_lowercase();
    match target.host.address() {
        // The one spelling of an address may differ from the one that came, not what it says.
        Some(address) => assert_eq!(name.trim_matches(['[', ']']).parse::<IpAddr>().ok(), Some(address)),
        None => {
            assert_eq!(name, target.host.as_str());
            assert!(!name.ends_with('.') && name.parse::<IpAddr>().is_err());
        }
    }
});
