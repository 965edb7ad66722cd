//! What the kernel knows of a process that does not answer: whether a call was taken by it, has been read, and what its threads
//! wait for. For whoever reads why a test has failed.

use std::fs;

/// The connections of a port on this machine, both ends of each, and the threads of the process that listens there.
pub fn of(port: u16, process: u32) -> String {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let ends: Vec<String> = table.lines().filter_map(|line| end(line, port)).collect();
    let mut threads = Vec::new();
    for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default().trim().to_owned();
        let state = read("stat").rsplit_once(") ").map(|(_, rest)| rest.chars().take(1).collect::<String>());
        let call = read("syscall").split(' ').next().unwrap_or_default().to_owned();
        threads.push(format!(
            "{} {} in {} (system call {call})",
            read("comm"),
            state.unwrap_or_default(),
            read("wchan")
        ));
    }
    threads.sort();
    format!("port {port}, process {process}:\n  {}\n  {}", ends.join("\n  "), threads.join("\n  "))
}

/// One line of the kernel's table, if the port is at either end. Inode 0 in state 01: nobody has accepted it.
fn end(line: &str, port: u16) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, local, remote, state, queues, _, _, _, _, inode, ..] = words.as_slice() else { return None };
    let port_of = |address: &str| u16::from_str_radix(address.split_once(':')?.1, 16).ok();
    let (local, remote) = (port_of(local)?, port_of(remote)?);
    (local == port || remote == port)
        .then(|| format!("{local} to {remote}: state {state}, to be sent:to be read {queues}, inode {inode}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_call_that_nobody_has_accepted_is_told_with_what_lies_there_to_be_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"hello").unwrap();
        let told = of(port, std::process::id());
        let here = format!("{port} to {}: state 01", client.local_addr().unwrap().port());
        let line = told.lines().find(|line| line.contains(&here)).unwrap_or_else(|| panic!("{told}"));
        assert!(line.ends_with("00000000:00000005, inode 0"), "{line}");
        assert!(told.contains("system call"), "{told}");
        drop(listener);
    }
}
