//! squid with ssl-bump, one worker, no cache and no log.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::ensure;

use super::{Parts, command, installed};
use crate::stage::{COLD_NAMES, HOST, cold_name};

const CONFIGURATION: &str = "\
http_port 127.0.0.1:{listen_port} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=8MB \
 tls-cert={stage}/proxy-ca.pem tls-key={stage}/proxy-ca.key
sslcrtd_program {peers}/squid/usr/lib/squid/security_file_certgen -s {folder}/leaves -M 8MB
sslcrtd_children 1 startup=1 idle=1
ssl_bump stare all
ssl_bump bump all
tls_outgoing_options cafile={stage}/origin-ca.pem
http_access allow all
request_header_access Authorization deny all
request_header_replace Authorization {injected}
hosts_file {folder}/hosts
dns_nameservers 127.0.0.1
unlinkd_program {peers}/squid/usr/lib/squid/unlinkd
pinger_enable off
max_filedescriptors 8192
mime_table {peers}/squid/usr/share/squid/mime.conf
icon_directory {peers}/squid/usr/share/squid/icons
error_directory {peers}/squid/usr/share/squid-langpack/templates
pid_filename {folder}/pid
coredump_dir {folder}
cache_log {folder}/cache.log
cache_effective_user nobody
visible_hostname localhost
cache deny all
access_log none
via off
forwarded_for delete
shutdown_lifetime 0 seconds
";

pub(crate) fn squid(parts: &Parts<'_>) -> anyhow::Result<Command> {
    let mut command = command("squid/usr/sbin/squid")?;
    let libraries = installed("squid/usr/lib/x86_64-linux-gnu");
    // squid cuts the last character of every line, so the last needs its end too.
    let names = (0..COLD_NAMES).map(cold_name).chain([HOST.to_owned()]);
    let hosts: Vec<String> = names.map(|name| format!("127.0.0.1 {name}\n")).collect();
    fs::write(parts.folder.join("hosts"), hosts.concat())?;
    // Started by root, squid becomes nobody, who has to write here.
    fs::set_permissions(&parts.folder, fs::Permissions::from_mode(0o777))?;
    let configuration = parts.configure("squid.conf", CONFIGURATION)?;
    let made = Command::new(installed("squid/usr/lib/squid/security_file_certgen"))
        .env("LD_LIBRARY_PATH", &libraries)
        .args(["-c", "-s"])
        .arg(parts.folder.join("leaves"))
        .args(["-M", "8MB"])
        .stdout(std::process::Stdio::null())
        .status()?;
    ensure!(made.success(), "the folder of its leaves cannot be made");
    for entry in [parts.folder.join("leaves"), parts.folder.join("leaves/certs")] {
        fs::set_permissions(entry, fs::Permissions::from_mode(0o777))?;
    }
    for entry in fs::read_dir(parts.folder.join("leaves"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o666))?;
        }
    }
    command.env("LD_LIBRARY_PATH", libraries).arg("-N").arg("-f").arg(configuration);
    Ok(command)
}
