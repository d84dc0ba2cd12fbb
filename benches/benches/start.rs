//! From the start of the server's process to readiness, and the memory of idle processes.
//!
//! `cargo build --release -p lap-server && cargo bench -p lap-benches --bench start`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on ends, and it prints"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lap_benches::{Figure, server_binary};

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--test");
    let mut times = Figure::default();
    println!("| figure | n | p50 ms | p95 ms |\n|---|---|---|---|");
    let folder = tempfile::tempdir().unwrap();
    for round in 0..if smoke { 1 } else { 20 } {
        let data = folder.path().join(round.to_string());
        let start = Instant::now();
        let (mut server, address) = start_server(&data);
        assert!(is_ready(&address), "the server says where it is and is not ready");
        times.add(start.elapsed());
        if round == 0 {
            memory(&server, smoke);
        }
        end(&mut server, &data);
    }
    times.print("start to ready, fresh data folder, vault included");
}

fn start_server(data: &std::path::Path) -> (Child, String) {
    let mut server = Command::new(server_binary())
        .args(["--dev", "--port", "0", "--data-dir"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap()).lines();
    let address = output
        .by_ref()
        .find_map(|line| Some(line.ok()?.split_once("http://localhost:")?.1.to_owned()));
    let port = address.unwrap();
    std::thread::spawn(move || output.for_each(drop));
    (server, format!("127.0.0.1:{}", port.trim()))
}

fn is_ready(address: &str) -> bool {
    let mut connection = TcpStream::connect(address).unwrap();
    connection
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.1 200")
}

fn memory(server: &Child, smoke: bool) {
    // Memory is read when the process has been idle for a while, not to wait for a state.
    std::thread::sleep(if smoke {
        Duration::ZERO
    } else {
        Duration::from_secs(5)
    });
    println!(
        "| server, resident, idle | 1 | {:.1} MB | |",
        resident(server.id())
    );
    for child in vaults_of(server.id()) {
        println!("| vault, resident, idle | 1 | {:.1} MB | |", resident(child));
    }
}

fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

fn vaults_of(server: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(1)?
            .parse::<u32>()
            .ok()
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(server)).collect()
}

/// The vault outlives its server and ends when its folder is gone.
fn end(server: &mut Child, data: &std::path::Path) {
    server.kill().unwrap();
    server.wait().unwrap();
    std::fs::remove_dir_all(data).unwrap();
}
