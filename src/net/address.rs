//! Which addresses a public name may not stand for: the guard against server-side request forgery.
//!
//! The list is that of the IANA special-purpose registries (RFC 6890 and its updates) plus multicast
//! and the ways to write an IPv4 address inside an IPv6 one. It is checked on the addresses that are
//! dialled, after resolving, so a name cannot change its answer in between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// True for an address that is reachable on the public internet.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => is_public_v4(four),
        IpAddr::V6(six) => is_public_v6(six),
    }
}

/// The IPv4 address that an IPv4-mapped IPv6 address means to the socket layer; others unchanged.
#[must_use]
pub fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0                                      // "this network", RFC 791
        || a == 10                                            // private, RFC 1918
        || (a == 100 && (64..128).contains(&b))               // shared address space, RFC 6598
        || a == 127                                           // loopback, RFC 1122
        || (a == 169 && b == 254)                             // link local and metadata services, RFC 3927
        || address == Ipv4Addr::new(168, 63, 129, 16)         // Azure's metadata service
        || (a == 172 && (16..32).contains(&b))                // private, RFC 1918
        || (a == 192 && b == 0 && (c == 0 || c == 2))         // IETF protocol assignments, TEST-NET-1
        || (a == 192 && b == 31 && c == 196)                  // AS112-v4, RFC 7535
        || (a == 192 && b == 52 && c == 193)                  // AMT, RFC 7450
        || (a == 192 && b == 88 && c == 99)                   // 6to4 relay anycast, RFC 7526
        || (a == 192 && b == 168)                             // private, RFC 1918
        || (a == 192 && b == 175 && c == 48)                  // AS112, RFC 7534
        || (a == 198 && (b == 18 || b == 19))                 // benchmarking, RFC 2544
        || (a == 198 && b == 51 && c == 100)                  // TEST-NET-2
        || (a == 203 && b == 0 && c == 113)                   // TEST-NET-3
        || a >= 224; // multicast, reserved, broadcast
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(four) = address.to_ipv4_mapped() {
        return is_public_v4(four);
    }
    match address.segments() {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) are as public as the address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => is_public_v4(embedded_v4(high, low)),
        [0x2001, 0..=0x1ff | 0xdb8, ..]        // IETF protocol assignments with Teredo; documentation
        | [0x3fff, 0..=0xfff, ..]              // documentation, RFC 9637
        | [0x2620, 0x4f, 0x8000, ..] => false, // AS112-v6, RFC 7534
        // All that IANA has handed out for global unicast is in 2000::/3.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn embedded_v4(high: u16, low: u16) -> Ipv4Addr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().expect("an address"))
    }

    #[test]
    fn each_special_range_is_refused_at_both_ends_and_its_neighbours_are_not() {
        let v4 = [
            ("0.0.0.0", "0.255.255.255", Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("128.0.0.0")),
            ("169.254.0.0", "169.254.255.255", Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.255", Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.3.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.114.0")),
            ("224.0.0.0", "255.255.255.255", None),
        ];
        for (first, last, after) in v4 {
            assert!(!public(first) && !public(last), "{first} to {last}");
            assert!(after.is_none_or(public), "after {last}");
        }
        assert!(
            public("9.255.255.255")
                && public("100.63.255.255")
                && public("172.15.255.255")
                && public("223.255.255.255")
        );
    }

    #[test]
    fn ipv6_ranges_and_every_way_to_write_an_ipv4_address_in_them() {
        let refused = [
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
            "4000::1",
        ];
        for text in refused {
            assert!(!public(text), "{text}");
        }
        for text in
            ["2606:4700::1111", "2a00:1450::1", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::", "3ffe::1"]
        {
            assert!(public(text), "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().expect("an address");
        assert_eq!(unmapped(mapped), "127.0.0.1".parse::<IpAddr>().expect("an address"));
    }
}
