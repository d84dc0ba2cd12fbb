//! Can the server listen where it is told to?

use std::io::ErrorKind;
use std::net::TcpListener;

use super::Finding;
use crate::config::Listen;

pub(super) fn look(listen: &Listen) -> Finding {
    let Listen { host, port } = listen;
    let place = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    match TcpListener::bind((host.as_str(), *port)) {
        Ok(_) if *port == 0 => Finding::good("port", "any free one"),
        Ok(_) => Finding::good("port", format!("{place} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Finding::bad(
            "port",
            format!("{place} is taken, perhaps by a server that is already running"),
        )
        .advise("stop it, or choose another port with PORT or --port"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::bad("port", format!("{place} is not allowed for this user"))
                .advise("choose a port above 1023 with PORT or --port")
        }
        Err(error) => Finding::bad("port", format!("{place} cannot be listened on: {error}"))
            .advise("choose an address of this machine with BIND_HOST or --bind"),
    }
}
