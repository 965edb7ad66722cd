//! CPU and memory of processes, from /proc (Linux only).

use std::fs;

use anyhow::{Context, Result};

/// Clock ticks of `/proc/<pid>/stat` per second: USER_HZ, 100 on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds consumed so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// The service, all instances.
    pub client: f64,
    /// Postgres: postmaster, living children, and children that have ended.
    pub postgres: f64,
    /// The broker.
    pub kafka: f64,
    /// This benchmark: producer, readers, polling.
    pub bench: f64,
    /// Everything on the machine.
    pub machine: f64,
}

/// Whose CPU is watched.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The service: one process per instance that runs.
    pub services: Vec<u32>,
    /// The postmaster.
    pub postgres: u32,
    /// The broker.
    pub kafka: u32,
}

impl Watched {
    /// CPU so far.
    pub fn cpu(&self) -> Result<Cpu> {
        let mut client = 0.0;
        for pid in &self.services {
            client += Stat::of(*pid)?.own;
        }
        Ok(Cpu {
            client,
            postgres: tree(self.postgres)?,
            kafka: Stat::of(self.kafka)?.own,
            bench: Stat::of(std::process::id())?.own,
            machine: machine()?,
        })
    }
}

impl Cpu {
    /// What was consumed since `before`.
    pub fn since(self, before: Cpu) -> Cpu {
        Cpu {
            client: self.client - before.client,
            postgres: self.postgres - before.postgres,
            kafka: self.kafka - before.kafka,
            bench: self.bench - before.bench,
            machine: self.machine - before.machine,
        }
    }

    /// What others on this machine consumed: the noise.
    pub fn others(self) -> f64 {
        (self.machine - self.client - self.postgres - self.kafka - self.bench).max(0.0)
    }
}

struct Stat {
    parent: u32,
    own: f64,
    ended_children: f64,
}

impl Stat {
    fn of(pid: u32) -> Result<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
        // The name, in parentheses, may hold spaces.
        let after_name = text.rsplit_once(") ").context("odd /proc stat")?.1;
        let fields: Vec<&str> = after_name.split(' ').collect();
        let number = |index: usize| -> Result<f64> { Ok(fields.get(index).context("short /proc stat")?.parse()?) };
        Ok(Stat {
            parent: number(1)? as u32,
            own: (number(11)? + number(12)?) / TICKS_PER_SECOND,
            ended_children: (number(13)? + number(14)?) / TICKS_PER_SECOND,
        })
    }
}

fn tree(root: u32) -> Result<f64> {
    let stat = Stat::of(root)?;
    let mut sum = stat.own + stat.ended_children;
    for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end while we look: then the postmaster has its time at the next look.
        if let Ok(stat) = Stat::of(pid)
            && stat.parent == root
        {
            sum += stat.own;
        }
    }
    Ok(sum)
}

fn machine() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = text.lines().next().context("empty /proc/stat")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    // user, nice, system, (idle, iowait,) irq, softirq
    let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index)).sum();
    Ok(busy / TICKS_PER_SECOND)
}

/// CPU seconds of this process so far.
#[cfg(feature = "embedded-engine")] // who else measures itself
pub fn own_cpu() -> Result<f64> {
    cpu_of(std::process::id())
}

/// CPU seconds of a process so far.
pub fn cpu_of(pid: u32) -> Result<f64> {
    Ok(Stat::of(pid)?.own)
}

/// Resident memory in MB: now, and the highest since the last [`forget_peak`].
pub fn memory_mb(pid: u32) -> Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let kilobytes = |name: &str| -> Result<f64> {
        let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
        Ok(line.split_whitespace().nth(1).context("odd /proc status")?.parse()?)
    };
    Ok((kilobytes("VmRSS:")? / 1024.0, kilobytes("VmHWM:")? / 1024.0))
}

/// Starts a new measurement of the highest memory.
pub fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("resetting the peak of {pid}"))
}

/// Load average of the last minute.
pub fn load_average() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    Ok(text.split(' ').next().context("empty /proc/loadavg")?.parse()?)
}

/// What the kernel calls the processor.
pub fn cpu_model() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let line = text.lines().find(|line| line.starts_with("model name"));
    Ok(line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, model)| model).to_owned())
}
