//! Paths of the pins, and checks that the pins there belong to this program.
//!
//! ```text
//! BPFFS/layout-N/maps/SELECTOR ...          the policy, shared by all interfaces
//! BPFFS/layout-N/maps/slot-S/SOURCES_V4 ... the inner maps of a slot
//! BPFFS/layout-N/interfaces/IFINDEX/link    the program on an interface
//! BPFFS/layout-N/interfaces/IFINDEX/refusal why it is not in the driver, if that refused it
//! BPFFS/watch                               locked by `run`
//! BPFFS/write                               locked by a writer
//! ```
//! The locks are outside of the layouts, so that binaries of different versions see each other. The
//! layout version is in the path: a binary of another version cannot read these maps by mistake.
//! Directories of interfaces are named by ifindex: bpffs refuses dots, and names may change.

mod lasting;

use std::{
    fs::{self, DirBuilder, File},
    hint::black_box,
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use filter_common::layout::LAYOUT_VERSION;
use lasting::Obstacle;
use nix::{sys::statfs::statfs, unistd::geteuid};

use crate::ui::error::{UserError, errno, hint};

/// The directory all pins are under.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

const LAYOUT: &str = "layout-";
/// This binary's layout directory, stored once: a test makes a binary of another layout from it.
#[used]
static OWN_LAYOUT: [u8; 9] = NAME;
const NAME: [u8; 9] = *b"layout-12";

const _: () = assert!(10 * (NAME[7] - b'0') as u32 + (NAME[8] - b'0') as u32 == LAYOUT_VERSION);

fn own_layout() -> &'static str {
    // The compiler must not know the value, so that the bytes in the binary decide.
    std::str::from_utf8(black_box(&OWN_LAYOUT)).expect("it is ASCII")
}
const MAPS: &str = "maps";
const NEW_MAPS: &str = "maps-new";
const INTERFACES: &str = "interfaces";
/// The pin next to a link that holds the driver's reason for refusing the program.
pub const REFUSAL: &str = "refusal";
const WATCH: &str = "watch";
/// The directory that a writer locks.
pub const WRITE: &str = "write";

impl Pins {
    /// The pins under `root`; reads nothing yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn layout(&self) -> PathBuf {
        self.root.join(own_layout())
    }

    /// The directory of the maps in use.
    pub fn maps(&self) -> PathBuf {
        self.layout().join(MAPS)
    }

    /// The directory for new maps, renamed to [`maps`](Self::maps) once they hold a policy.
    pub fn new_maps(&self) -> PathBuf {
        self.layout().join(NEW_MAPS)
    }

    /// The directory that `run` locks while it runs.
    pub fn watch(&self) -> PathBuf {
        self.root.join(WATCH)
    }

    /// The directory of an interface.
    pub fn interface(&self, ifindex: u32) -> PathBuf {
        self.layout().join(INTERFACES).join(ifindex.to_string())
    }

    /// The link of an interface: it holds the program there as long as this pin exists.
    pub fn link(&self, ifindex: u32) -> PathBuf {
        self.interface(ifindex).join("link")
    }

    /// The interfaces with a link that is pinned in this layout, by ifindex.
    ///
    /// # Errors
    /// If the pins cannot be read.
    pub fn interfaces(&self) -> Result<Vec<u32>> {
        let mut found: Vec<u32> = list(&self.layout().join(INTERFACES))
            .with_context(|| format!("read pins in `{}`", self.root.display()))?
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter(|ifindex| self.link(*ifindex).exists())
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Checks that existing pins are in a bpffs, and that no other user can change them.
    ///
    /// # Errors
    /// If the directory is not in a bpffs, or another user may change its content.
    pub fn check(&self) -> Result<()> {
        if !self.root.exists() {
            return Ok(());
        }
        self.refuse_other_filesystems()?;
        // Write access above the mount point changes nothing inside the mount.
        let device = self.metadata(&self.root)?.dev();
        for path in self.root.ancestors() {
            let metadata = self.metadata(path)?;
            if metadata.dev() != device {
                break;
            }
            let sticky = metadata.mode() & 0o1000 != 0;
            self.refuse_other_owner(path, path == self.root, sticky)?;
        }
        let names = list(&self.root).map_err(|error| self.explain("read pins", &error))?;
        for name in names {
            if name == WATCH || name == WRITE || is_layout(&name) {
                self.refuse_other_owner(&self.root.join(name), true, false)?;
            }
        }
        Ok(())
    }

    fn metadata(&self, path: &Path) -> Result<fs::Metadata> {
        fs::metadata(path).map_err(|error| self.explain("read pins", &error))
    }

    /// Refuses a directory that others may write to, unless it is `sticky`, and one that is not
    /// root's. If it is our `own`, another user may not own it either.
    fn refuse_other_owner(&self, path: &Path, own: bool, sticky: bool) -> Result<()> {
        let metadata = self.metadata(path)?;
        let uid = metadata.uid();
        let cause = if uid != geteuid().as_raw() && (own || uid != 0) {
            format!("user {uid} owns `{}`", path.display())
        } else if metadata.mode() & 0o022 != 0 && !sticky {
            format!("other users can write to `{}`", path.display())
        } else {
            return Ok(());
        };
        Err(UserError::failed(
            format!("open pins in `{}`: {cause}", self.root.display()),
            format!(
                "check its contents, then `chown root {0}` and `chmod 700 {0}`; or name another directory with `--bpffs`",
                path.display()
            ),
        ))
    }

    /// Refuses a directory that is not in a bpffs.
    fn refuse_other_filesystems(&self) -> Result<()> {
        let filesystem =
            statfs(self.existing()).map_err(|error| self.explain("read pins", &error.into()))?;
        self.refuse(lasting::no_bpffs(filesystem))
    }

    fn refuse(&self, obstacle: Option<Obstacle>) -> Result<()> {
        let Some((cause, hint)) = obstacle else {
            return Ok(());
        };
        let cause = format!("open pins in `{}`: {cause}", self.root.display());
        Err(UserError::failed(cause, hint))
    }

    /// The root directory, or its nearest ancestor that exists.
    fn existing(&self) -> &Path {
        let mut paths = self.root.ancestors();
        paths.find(|path| path.exists()).unwrap_or(Path::new("/"))
    }

    /// Checks that the directory can hold lasting pins, and creates it.
    ///
    /// # Errors
    /// If it is not in a bpffs that outlives this process, or others may change its content.
    pub fn prepare(&self) -> Result<()> {
        self.refuse_other_filesystems()?;
        let device = self.metadata(self.existing())?.dev();
        self.refuse(lasting::ends_with_process(device))?;
        self.check()?;
        self.make(&self.layout())
    }

    /// Creates the directory of an interface.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn prepare_interface(&self, ifindex: u32) -> Result<()> {
        self.make(&self.interface(ifindex))
    }

    /// Creates an empty directory for new maps, and removes the remains of a crashed writer.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn prepare_new_maps(&self) -> Result<()> {
        let aside = self.new_maps();
        remove_tree(&aside).map_err(|error| self.explain("remove pins", &error))?;
        self.make(&aside)
    }

    fn make(&self, directory: &Path) -> Result<()> {
        make_private(directory).map_err(|error| self.explain("make directory", &error))
    }

    /// Refuses a filter of another layout version: only `attach` and `run` can take it over.
    ///
    /// # Errors
    /// If there is one, or the pins cannot be read.
    pub fn check_layout(&self) -> Result<()> {
        let Some((_, pin)) = self.other_links()?.into_iter().next() else {
            return Ok(());
        };
        // Pinned at ROOT/layout-N/interfaces/IFINDEX/link.
        let layout = pin.ancestors().nth(3).and_then(Path::file_name);
        let layout = layout.unwrap_or_default().to_string_lossy();
        Err(UserError::failed(
            format!(
                "open pins in `{}`: map {}, this binary needs {}",
                self.root.display(),
                layout.replace('-', " "),
                own_layout().replace('-', " ")
            ),
            "`apifence attach` or `systemctl restart apifence` takes the filter over without a gap; `apifence detach` removes it",
        ))
    }

    /// The links that binaries of other layout versions pinned, each with its interface's ifindex.
    ///
    /// # Errors
    /// If the pins cannot be read.
    pub fn other_links(&self) -> Result<Vec<(u32, PathBuf)>> {
        let own = self.layout();
        let others = self.all_links()?.into_iter();
        let others = others.filter(|link| !link.starts_with(&own));
        let numbered = others.filter_map(|link| {
            let name = link.parent()?.file_name()?.to_str()?;
            Some((name.parse().ok()?, link))
        });
        Ok(numbered.collect())
    }

    /// The link of an interface, whichever layout it is pinned in.
    ///
    /// # Errors
    /// If the pins cannot be read.
    pub fn any_link(&self, ifindex: u32) -> Result<PathBuf> {
        let own = self.link(ifindex);
        if own.exists() {
            return Ok(own);
        }
        let others = self.other_links()?.into_iter();
        let mut others = others.filter(|(number, _)| *number == ifindex);
        Ok(others.next().map_or(own, |(_, link)| link))
    }

    /// The maps of the layout that a link is pinned in.
    pub fn maps_of(link: &Path) -> Option<PathBuf> {
        // Pinned at ROOT/layout-N/interfaces/IFINDEX/link.
        Some(link.ancestors().nth(3)?.join(MAPS))
    }

    /// Moves a link that another layout version pinned to its place in this layout.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn take_over_link(&self, ifindex: u32, other: &Path) -> Result<()> {
        self.prepare_interface(ifindex)?;
        let own = self.link(ifindex);
        let explain = |error: io::Error| self.explain("rename pin", &error);
        let refusal = other.with_file_name(REFUSAL);
        if refusal.exists() {
            fs::rename(refusal, own.with_file_name(REFUSAL)).map_err(explain)?;
        }
        fs::rename(other, own).map_err(explain)
    }

    /// Removes the pins of other layout versions, once no link is pinned there.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn remove_other_layouts(&self) -> Result<()> {
        if !self.other_links()?.is_empty() {
            return Ok(());
        }
        let own = self.layout();
        for layout in self.layouts()?.iter().filter(|layout| **layout != own) {
            remove_tree(layout).map_err(|error| self.explain("remove pins", &error))?;
        }
        Ok(())
    }

    /// Removes maps of this layout that no pinned link uses, where a filter of another layout is to
    /// be taken over. An earlier takeover crashed there, and their content may be old.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn remove_unused_maps(&self) -> Result<()> {
        if self.interfaces()?.is_empty() && !self.other_links()?.is_empty() {
            self.remove_maps(&self.layout())?;
        }
        Ok(())
    }

    /// The pinned links of every layout here: `detach` removes them, whichever version pinned them.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn all_links(&self) -> Result<Vec<PathBuf>> {
        let mut links = Vec::new();
        for layout in self.layouts()? {
            let interfaces = layout.join(INTERFACES);
            for name in list(&interfaces)? {
                let link = interfaces.join(name).join("link");
                if link.exists() {
                    links.push(link);
                }
            }
        }
        Ok(links)
    }

    /// Removes everything that any version of apifence pinned here, and the directory. Links go
    /// first: from then on nothing is filtered. Then the maps' directory is renamed in one step:
    /// after a crash here the next process finds all of the maps, or none.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn remove_all(&self) -> Result<()> {
        for link in self.all_links()? {
            fs::remove_file(&link).map_err(|error| self.explain("remove pin", &error))?;
        }
        let explain = |error: io::Error| self.explain("remove pins", &error);
        for layout in self.layouts()? {
            self.remove_maps(&layout)?;
            remove_tree(&layout).map_err(explain)?;
        }
        for lock in [WATCH, WRITE] {
            let lock = self.root.join(lock);
            // A lock that `run` holds stays; this process itself holds the writer's lock.
            let free = File::open(&lock).is_ok_and(|file| file.try_lock().is_ok());
            if free || lock.ends_with(WRITE) {
                let _ = fs::remove_dir(lock);
            }
        }
        // Files of other programs keep the directory; so does a mount on it.
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }

    /// Renames the maps' directory of `layout` in one step, and removes it.
    fn remove_maps(&self, layout: &Path) -> Result<()> {
        let explain = |error: io::Error| self.explain("remove pins", &error);
        let (maps, aside) = (layout.join(MAPS), layout.join(NEW_MAPS));
        if maps.exists() {
            remove_tree(&aside).map_err(explain)?;
            fs::rename(maps, &aside).map_err(explain)?;
        }
        remove_tree(&aside).map_err(explain)
    }

    /// Removes the pin of the link of one interface.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn remove_interface(&self, ifindex: u32) -> Result<()> {
        match fs::remove_file(self.link(ifindex)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.explain("remove pin", &error));
            }
            _ => {}
        }
        let _ = fs::remove_file(self.interface(ifindex).join(REFUSAL));
        fs::remove_dir(self.interface(ifindex)).map_err(|error| self.explain("remove pins", &error))
    }

    /// Whether a version of apifence made anything here except a writer's lock.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn is_used(&self) -> Result<bool> {
        Ok(self.watch().exists() || !self.layouts()?.is_empty())
    }

    /// Removes the lock of a writer that had nothing to do. The directory may be another program's.
    /// If this fails, the next writer uses it again.
    pub fn remove_writer_lock(&self) {
        let _ = fs::remove_dir(self.root.join(WRITE));
    }

    fn layouts(&self) -> Result<Vec<PathBuf>> {
        let names =
            list(&self.root).with_context(|| format!("read pins in `{}`", self.root.display()))?;
        Ok(names
            .iter()
            .filter(|name| is_layout(name))
            .map(|name| self.root.join(name))
            .collect())
    }

    fn explain(&self, verb: &str, error: &io::Error) -> anyhow::Error {
        let way_out = if self.root.to_string_lossy().contains('.') {
            "a name in bpffs cannot have a dot; name another directory with `--bpffs`"
        } else {
            hint(error, NEEDS_ROOT)
        };
        UserError::failed(
            format!("{verb} in `{}`: {}", self.root.display(), errno(error)),
            way_out,
        )
    }
}

/// The hint where the kernel refuses access to pins.
pub const NEEDS_ROOT: &str = "pins need root and a writable bpffs";

/// The version in the name of a layout's directory; `None` unless it is all digits.
fn layout_version(name: &str) -> Option<&str> {
    let version = name.strip_prefix(LAYOUT)?;
    let digits = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some(version)
}

/// Whether this is the name of a layout's directory.
pub fn is_layout(name: &str) -> bool {
    layout_version(name).is_some()
}

/// Creates a directory and its parents with mode 0700: a process that can open one can lock it.
///
/// # Errors
/// If the file system refuses.
pub fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Removes a directory with its content; it may be absent.
fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The names in a directory; none if it does not exist.
fn list(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
