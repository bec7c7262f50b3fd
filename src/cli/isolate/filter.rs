//! The system calls that lead around namespaces, refused for the command and all that it starts.
//!
//! Not a sandbox of system calls: only what a namespace does not hold. A program for another architecture (32 bits), whose
//! calls have other numbers, is killed.

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

/// Puts the filter on this thread, for ever.
pub(super) fn apply() -> Result<(), Refused> {
    let failed = |error: &dyn std::fmt::Display| Refused::of("system calls cannot be filtered", error);
    let program = program().map_err(|error| failed(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(&error))
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let is_not = |family: libc::c_int| condition(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs()));
    let foreign = FAMILIES.into_iter().map(is_not).collect::<Result<Vec<_>, _>>()?;
    let typing = TYPING.into_iter().map(|request| SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, request)?]));
    let typing = typing.collect::<Result<Vec<_>, _>>()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
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
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    // All of these arguments are 32 bits to the kernel, whatever the upper half says.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_filter_compiles_here() {
        assert!(super::program().is_ok_and(|program| !program.is_empty()));
    }
}
