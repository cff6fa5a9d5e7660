//! A real nginx that hands out a file: to everybody below `/open`, and below `/guarded` to whom Claviger lets in.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::driver::{self, Requests, Target};
use crate::server::pause;

/// The ceiling of what it does with questions.
pub(crate) const ALONE: &str = "nginx alone";

pub(crate) struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// `None` where there is no nginx that can ask. It asks `claviger` at `path`.
    pub(crate) fn start(claviger: SocketAddr, path: &str) -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx", "/usr/local/bin/nginx"].into_iter().find(
            |program| {
                Command::new(program)
                    .arg("-V")
                    .output()
                    .is_ok_and(|said| String::from_utf8_lossy(&said.stderr).contains("--with-http_auth_request_module"))
            },
        )?;
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        // Its workers are nobody.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for place in ["open", "guarded"] {
            fs::write(folder.path().join(place), r#"{"status":"ok"}"#).unwrap();
        }
        let configuration = folder.path().join("nginx.conf");
        fs::write(&configuration, configured(address, claviger, path, &folder.path().display().to_string())).unwrap();
        let log = folder.path().join("error.log");
        let mut command = Command::new(program);
        command.arg("-c").arg(&configuration).arg("-e").arg(&log).stdout(Stdio::null()).stderr(Stdio::null());
        let nginx = Self { child: command.spawn().unwrap(), address, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen: {}", fs::read_to_string(&log).unwrap_or_default());
            pause(Duration::from_millis(10));
        }
        Some(nginx)
    }

    /// These callers want a file.
    pub(crate) fn target(&self, path: &str, callers: &[String]) -> Target {
        let get = |caller: &String| driver::request("GET", path, "bench", &[("Authorization", caller)], None);
        Target { address: self.address, requests: Requests::InTurn(callers.iter().map(get).collect()), expect_status: 200 }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// As docs/examples/nginx-forward-auth.conf asks.
fn configured(address: SocketAddr, claviger: SocketAddr, path: &str, folder: &str) -> String {
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {folder}/{kind};\n")).concat();
    format!(
        "daemon off;
        worker_processes auto;
        pid {folder}/nginx.pid;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            keepalive_requests 1000000;
            {temporary}
            upstream claviger {{ server {claviger}; keepalive 64; keepalive_requests 1000000; }}
            server {{
                listen {address};
                server_name app.example.com;
                root {folder};
                location = /open {{ }}
                location = /guarded {{ auth_request /_claviger; }}
                location = /_claviger {{
                    internal;
                    proxy_pass http://claviger{path};
                    proxy_pass_request_body off;
                    proxy_http_version 1.1;
                    proxy_set_header Connection \"\";
                    proxy_set_header Content-Length \"\";
                    proxy_set_header X-Original-Method $request_method;
                    proxy_set_header X-Original-URL $scheme://$server_name$request_uri;
                }}
            }}
        }}
        "
    )
}
