//! Why a kernel refuses, and what a person can type about it.

use std::fs;

use nix::errno::Errno;

/// Why the command cannot be isolated.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) hints: Vec<String>,
}

impl Refused {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), hints: Vec::new() }
    }

    /// A step that failed, and what the system says.
    pub(super) fn of(step: &str, cause: impl std::fmt::Display) -> Self {
        Self::new(format!("{step}: {cause}"))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The namespaces themselves are refused: the switch that does it, where it can be found.
    pub(super) fn namespaces(cause: Errno) -> Self {
        let refused = Self::of("this system gives no namespaces to this user", cause);
        refused.with_switches()
    }

    /// root gets everything but the user namespace that keeps it from taking it all away again.
    pub(super) fn undoable() -> Self {
        Self::new("this system gives root no user namespace, and without one root can undo the isolation")
            .with_switches()
    }

    fn with_switches(self) -> Self {
        let mut refused = switches().into_iter().fold(self, Self::hint);
        if refused.hints.is_empty() {
            refused = refused
                .hint("in a container, let it make user namespaces: --security-opt seccomp=FILE, or --privileged");
        }
        let refused = refused.hint("capctl run --isolate=landlock needs no namespaces, and holds less (docs/run.md)");
        refused.hint("capctl doctor says what this kernel allows; without --isolate the command may go past the proxy")
    }

    /// Something that a namespace should allow is refused inside it.
    pub(super) fn inside(step: &str, cause: impl std::fmt::Display) -> Self {
        switches().into_iter().fold(Self::of(step, cause), Self::hint)
    }
}

/// The switches that are known to forbid user namespaces, each as what turns it.
fn switches() -> Vec<String> {
    let reads = |name: &str, value: &str| {
        fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|text| text.trim() == value)
    };
    let mut found = Vec::new();
    if reads("user/max_user_namespaces", "0") {
        found.push("sudo sysctl user.max_user_namespaces=10000".to_owned());
    }
    if reads("kernel/unprivileged_userns_clone", "0") {
        found.push("sudo sysctl kernel.unprivileged_userns_clone=1".to_owned());
    }
    if reads("kernel/apparmor_restrict_unprivileged_userns", "1") {
        found.push(
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with `userns,` for capctl"
                .to_owned(),
        );
    }
    found
}
