//! Where servers keep files: a cache that stays, and throw-away folders that go with the run.
//!
//! A run's folder holds a locked file. The lock ends with the process, however it ended, so the next
//! run can tell the folders of dead runs and removes them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::{env, process};

use anyhow::{Context, Result, bail};

use super::process::{Account, effective_user_id};

const RUN_PREFIX: &str = "streamview-run-";
const LOCK_NAME: &str = "lock";

/// `$XDG_CACHE_HOME/streamview` or `~/.cache/streamview`, created when missing.
pub fn cache_folder() -> Result<PathBuf> {
    let base = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".cache"),
        _ => bail!("no place for cached servers: set XDG_CACHE_HOME or HOME"),
    };
    let folder = base.join("streamview");
    fs::create_dir_all(&folder)
        .with_context(|| format!("creating {}; set XDG_CACHE_HOME to a writable folder", folder.display()))?;
    Ok(folder)
}

/// Makes `target` exist exactly once on this machine: `build` fills a folder beside it, which is then
/// renamed into place. Other processes wait at a lock file and find the finished folder.
pub fn build_once(target: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    let parent = target.parent().context("a cached folder has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    let lock = lock_exclusively(&target.with_added_extension("lock"))?;
    if target.exists() {
        return Ok(()); // another process was faster
    }
    let unfinished = target.with_added_extension("unfinished");
    if unfinished.exists() {
        remove_tree(&unfinished)?; // its builder died
    }
    fs::create_dir(&unfinished).with_context(|| format!("creating {}", unfinished.display()))?;
    build(&unfinished)?;
    fs::rename(&unfinished, target).with_context(|| format!("moving into place {}", target.display()))?;
    drop(lock);
    Ok(())
}

fn lock_exclusively(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("opening the lock {}", path.display()))?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// The throw-away folder of this process. Removed with its last user, or by the next run's sweep.
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// The folder of this process, made at the first call; sweeps the folders of dead runs then.
    pub fn current() -> Result<Arc<RunFolder>> {
        static CURRENT: Mutex<Weak<RunFolder>> = Mutex::new(Weak::new());
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = current.upgrade() {
            return Ok(folder);
        }
        sweep(&env::temp_dir());
        let folder = Arc::new(RunFolder::create(&env::temp_dir())?);
        *current = Arc::downgrade(&folder);
        Ok(folder)
    }

    fn create(temp: &Path) -> Result<RunFolder> {
        let name = format!("{}-{:08x}", process::id(), fastrand::u32(..));
        // Not under its final name until the lock is held: a sweep must never see it unlocked.
        let unlocked = temp.join(format!("streamview-new-{name}"));
        let path = temp.join(format!("{RUN_PREFIX}{name}"));
        // Others may pass through (PostgreSQL runs as another user when we are root), not look.
        fs::DirBuilder::new()
            .mode(0o711)
            .create(&unlocked)
            .with_context(|| format!("creating {}", unlocked.display()))?;
        let lock = lock_exclusively(&unlocked.join(LOCK_NAME))?;
        fs::rename(&unlocked, &path).with_context(|| format!("creating {}", path.display()))?;
        Ok(RunFolder { path, _lock: lock })
    }

    /// A new empty folder in it, `<name>-<number>`, for one server.
    pub fn server_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path.join(format!("{name}-{:08x}", fastrand::u32(..)));
        fs::DirBuilder::new().mode(0o711).create(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(folder)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            eprintln!("leaving {} to the next run: {error:#}", self.path.display());
        }
    }
}

/// Removes the folders of dead runs of this user. What cannot be removed is reported and left.
fn sweep(temp: &Path) {
    let Ok(entries) = fs::read_dir(temp) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(RUN_PREFIX) {
            continue;
        }
        match is_dead(&entry.path()) {
            Ok(false) => {}
            Ok(true) => {
                if let Err(error) = remove_tree(&entry.path()) {
                    eprintln!("cannot sweep {}: {error:#}", entry.path().display());
                }
            }
            // Being removed by its owner or another sweep right now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => eprintln!("cannot sweep {}: {error}", entry.path().display()),
        }
    }
}

fn is_dead(folder: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(folder)?;
    if !metadata.is_dir() || metadata.uid() != effective_user_id() {
        return Ok(false);
    }
    match File::open(folder.join(LOCK_NAME)) {
        Ok(lock) => Ok(lock.try_lock().is_ok()),
        // A removal that was cut short took the lock file first.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// As `rm -rf`; fine when it is gone already. Servers that were just killed may still write their last
/// file into it, hence the second look.
pub fn remove_tree(path: &Path) -> Result<()> {
    let removed = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(path),
        first => first,
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Copies a tree of folders and plain files with their permissions, and gives it to `owner`.
/// `to` must not exist, or be an empty folder.
pub fn copy_tree(from: &Path, to: &Path, owner: Option<&Account>) -> Result<()> {
    copy_folder(from, to, owner).with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

fn copy_folder(from: &Path, to: &Path, owner: Option<&Account>) -> io::Result<()> {
    if !to.exists() {
        fs::create_dir(to)?;
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target, owner)?;
            continue;
        }
        fs::copy(entry.path(), &target)?;
        give_to(&target, owner)?;
    }
    fs::set_permissions(to, fs::Permissions::from_mode(fs::metadata(from)?.mode()))?;
    give_to(to, owner)
}

/// Changes the owner of one file or folder; `None` leaves it ours.
pub fn give_to(path: &Path, owner: Option<&Account>) -> io::Result<()> {
    match owner {
        Some(account) => chown(path, Some(account.uid), Some(account.gid)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_removes_dead_runs_and_nothing_else() {
        let temp = tempfile::tempdir().expect("temp dir");
        let alive = RunFolder::create(temp.path()).expect("a run folder");
        let dead = temp.path().join("streamview-run-1-dead");
        fs::create_dir_all(dead.join("postgres-1/data")).expect("a dead run");
        File::create(dead.join(LOCK_NAME)).expect("its lock");
        let foreign = temp.path().join("something-else");
        fs::create_dir(&foreign).expect("a folder of somebody else");

        sweep(temp.path());

        assert!(alive.path.exists());
        assert!(foreign.exists());
        assert!(!dead.exists());
    }

    #[test]
    fn a_cached_folder_is_built_once_and_never_half() {
        let temp = tempfile::tempdir().expect("temp dir");
        let target = temp.path().join("cache").join("thing-1.0");

        let failed = build_once(&target, |folder| {
            fs::write(folder.join("half"), "").expect("written");
            bail!("no network")
        });
        assert!(failed.is_err());
        assert!(!target.exists());

        build_once(&target, |folder| Ok(fs::write(folder.join("whole"), "")?)).expect("built");
        build_once(&target, |_| bail!("built twice")).expect("found");
        assert!(target.join("whole").exists());
        assert!(!target.join("half").exists());
    }
}
