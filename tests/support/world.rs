//! A network of a test's own, in two namespaces. One is the world: it has the origins, and the test itself, which starts
//! again in it. The other is a pod, with one way out: a cable to the world.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::unistd::geteuid;

use super::PATIENCE;
use super::client::{clean, program, run, run_within, skip};

/// Set in the namespace that is the world.
const IN_THE_WORLD: &str = "NARROWS_TEST_WORLD";
pub(crate) const WORLD: &str = "10.7.0.1";
pub(crate) const WORLD_6: &str = "fd07::1";
/// An address that the pod can send to, and at which nobody is.
pub(crate) const ELSEWHERE: &str = "203.0.113.5";
pub(crate) const ELSEWHERE_6: &str = "2001:db8::5";

/// True when this is the test itself. Else it has run in a network namespace of its own, with these variables too, or
/// cannot.
pub(crate) fn in_the_world(test: &str, variables: &[(&str, &OsStr)]) -> bool {
    if std::env::var_os(IN_THE_WORLD).is_some() {
        return true;
    }
    for needed in ["nft", "ip", "curl", "setpriv", "nsenter", "unshare"] {
        if program(needed).is_none() {
            skip(test, &format!("{needed} is not installed"));
            return false;
        }
    }
    if !geteuid().is_root() {
        skip(test, "rules and users of a test's own need root");
        return false;
    }
    let mut again = Command::new("unshare");
    again.args(["--net", "--"]).arg(std::env::current_exe().unwrap()).args(["--exact", "--nocapture", test]);
    again.env(IN_THE_WORLD, "1").envs(variables.iter().copied());
    run_within(&mut again, b"", PATIENCE * 6).succeeded();
    false
}

/// A cable between the world and the pod, and the pod's way out through it.
pub(crate) fn connect(pod: u32) {
    let world = format!(
        "ip link set lo up && ip link add world type veth peer name pod netns {pod} && ip link set world up &&
         ip addr add {WORLD}/24 dev world && ip -6 addr add {WORLD_6}/64 dev world nodad"
    );
    run(Command::new("sh").args(["-ec", &world]), b"").succeeded();
    let inner = format!(
        "ip link set lo up && ip link set pod up && ip addr add 10.7.0.2/24 dev pod &&
         ip -6 addr add fd07::2/64 dev pod nodad && ip route add default via {WORLD} &&
         ip -6 route add default via {WORLD_6}"
    );
    run(&mut inside(pod, None, Path::new("sh"), &["-ec", &inner]), b"").succeeded();
}

/// A program in the network namespace of process `pod`, as this user.
pub(crate) fn inside(pod: u32, user: Option<u32>, program: &Path, arguments: &[&str]) -> Command {
    let mut command = clean(Path::new("nsenter"));
    command.arg(format!("--net=/proc/{pod}/ns/net")).arg("--");
    if let Some(user) = user {
        let user = user.to_string();
        command.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
    }
    command.arg(program).args(arguments);
    command
}

/// What connects to `at` is carried to `to`: origins listen on loopback, and the pod has another.
pub(crate) fn relay(at: &str, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(at).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let Ok(origin) = TcpStream::connect(to) else { continue };
            for (mut from, mut into) in [(client.try_clone().unwrap(), origin.try_clone().unwrap()), (origin, client)] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut into);
                    let _ = into.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    address
}
