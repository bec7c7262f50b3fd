//! The system calls that lead around namespaces, or around Landlock, refused for the command and all that it starts.
//!
//! Not a sandbox of system calls: only what the one or the other does not hold. A program for another architecture (32
//! bits), whose calls have other numbers, is killed.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::refused::Refused;

/// Families of sockets that a network namespace holds. Others do not know namespaces: `AF_VSOCK` reaches the host of a
/// virtual machine.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// Writing into the terminal as if the person typed it: the shell outside would run that.
const TYPING: [u64; 2] = [0x5412, 0x541c]; // TIOCSTI, TIOCLINUX (ioctl_tty(2))
/// A second table of the same calls on x86-64.
const X32: i64 = 0x4000_0000;
const X32_IOCTL: i64 = 514;

/// x32 has numbers of its own for these.
const X32_SENDMSG: i64 = 518;
const X32_SENDMMSG: i64 = 538;
/// Beside what it is, the kind of a socket says how it behaves (socket(2)): these bits say what.
const KIND: u64 = 0xf;
/// A connection made by sending, which Landlock does not see (send(2)).
const FASTOPEN: u64 = 0x2000_0000;

/// What else holds the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Namespaces,
    Landlock,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Built<T> = Result<T, seccompiler::BackendError>;

/// Puts the filter on this thread, for ever.
pub(super) fn apply(beside: Beside) -> Result<(), Refused> {
    let failed = |error: &dyn std::fmt::Display| Refused::of("system calls cannot be filtered", error);
    let program = program(beside).map_err(|error| failed(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(&error))
}

fn program(beside: Beside) -> Built<BpfProgram> {
    let mut rules = around_namespaces()?;
    if beside == Beside::Landlock {
        around_landlock(&mut rules)?;
    }
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn around_namespaces() -> Built<Rules> {
    let is_not = |other: libc::c_int| condition(0, SeccompCmpOp::Ne, family(other));
    let foreign = FAMILIES.into_iter().map(is_not).collect::<Built<Vec<_>>>()?;
    let typing = TYPING.into_iter().map(|request| SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, request)?]));
    let typing = typing.collect::<Built<Vec<_>>>()?;
    let mut rules = Rules::new();
    for table in [0, X32] {
        rules.insert(table + libc::SYS_socket, vec![SeccompRule::new(foreign.clone())?]);
        // Its operations are system calls that no filter sees.
        rules.insert(table + libc::SYS_io_uring_setup, Vec::new());
        // A request for a key may have the kernel run a program outside, which asks a name server.
        for keys in [libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key] {
            rules.insert(table + keys, Vec::new());
        }
    }
    rules.insert(libc::SYS_ioctl, typing.clone());
    rules.insert(X32 + X32_IOCTL, typing);
    Ok(rules)
}

/// Landlock holds `connect` of TCP and nothing else of a socket: no Unix socket is made but in pairs, no other protocol of
/// IP (UDP, MPTCP), nothing listens, and no connection is made by sending. Nor does it hold the limits of another process,
/// by which any of the user's can be stopped.
fn around_landlock(rules: &mut Rules) -> Built<()> {
    let stream = u64::from(libc::SOCK_STREAM.unsigned_abs());
    let mut sockets = vec![SeccompRule::new(vec![condition(0, SeccompCmpOp::Eq, family(libc::AF_UNIX))?])?];
    for internet in [libc::AF_INET, libc::AF_INET6].map(family) {
        let of_it = || condition(0, SeccompCmpOp::Eq, internet);
        for other in (0..=KIND).filter(|kind| *kind != stream) {
            sockets.push(SeccompRule::new(vec![of_it()?, condition(1, SeccompCmpOp::MaskedEq(KIND), other)?])?);
        }
        let not_tcp = [0, u64::from(libc::IPPROTO_TCP.unsigned_abs())].map(|it| condition(2, SeccompCmpOp::Ne, it));
        sockets.push(SeccompRule::new([of_it()].into_iter().chain(not_tcp).collect::<Built<Vec<_>>>()?)?);
    }
    let fast = |argument| -> Built<Vec<SeccompRule>> {
        Ok(vec![SeccompRule::new(vec![condition(argument, SeccompCmpOp::MaskedEq(FASTOPEN), FASTOPEN)?])?])
    };
    for table in [0, X32] {
        rules.entry(table + libc::SYS_socket).or_default().extend(sockets.iter().cloned());
        rules.insert(table + libc::SYS_listen, Vec::new());
        // Its own limits are those of process 0.
        rules.insert(table + libc::SYS_prlimit64, vec![SeccompRule::new(vec![condition(0, SeccompCmpOp::Ne, 0)?])?]);
        rules.insert(table + libc::SYS_sendto, fast(3)?);
    }
    for (call, argument) in
        [(libc::SYS_sendmsg, 2), (X32 + X32_SENDMSG, 2), (libc::SYS_sendmmsg, 3), (X32 + X32_SENDMMSG, 3)]
    {
        rules.insert(call, fast(argument)?);
    }
    Ok(())
}

fn family(family: libc::c_int) -> u64 {
    u64::from(family.unsigned_abs())
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Built<SeccompCondition> {
    // All of these arguments are 32 bits to the kernel, whatever the upper half says.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_filter_compiles_here() {
        for beside in [super::Beside::Namespaces, super::Beside::Landlock] {
            assert!(super::program(beside).is_ok_and(|program| !program.is_empty()));
        }
    }
}
