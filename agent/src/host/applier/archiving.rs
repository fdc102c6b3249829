//! Where a run copies what it takes: the stores that its rules name, and what their catalogue says of each entry.
//!
//! What may never happen: a rule that archives takes something without a copy because its store is not configured any more, is another than in
//! the plan, or cannot be reached.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::Applier;
use crate::host::HostError;
use crate::volume::Volume;
use purge_archive::archive::{self, Archive};
use purge_archive::catalogue::{self, Line};
use purge_archive::content::Content;
use purge_archive::copy::CopyError;
use purge_archive::key::hex;
use purge_archive::settings::Settings;
use purge_archive::store::Store;
use purge_base::accounts::{group_name, user_name};
use purge_base::clock;
use purge_base::id::new_id;
use purge_model::Kind;
use purge_policy::evaluate::Shape;
use purge_removal::audit::Heading;
use purge_removal::copying::{Copier, Copy, NotCopied, Original};
use purge_removal::plans::Plan;
use purge_removal::protection::Guard;
use purge_sys::{likeness, private};

impl Applier {
    /// The store of each rule of a plan; none: the rule makes no copies.
    ///
    /// # Errors
    /// When a store is not the one that the plan names, or when nothing would prove on this volume that a copy is the file.
    pub(super) fn stores_of(
        &self,
        plan: &Plan,
        volume: &Volume,
        wanted_graces: &[u64],
    ) -> Result<Vec<Option<Settings>>, HostError> {
        let known = self.ground.archives();
        let refused = |why: String| Err(HostError::Refused(why));
        let mut stores = Vec::new();
        for (n, rule) in plan.rules.iter().enumerate() {
            let Some(to) = &rule.archive else {
                stores.push(None);
                continue;
            };
            let found = known.iter().find(|s| s.name == to.name && s.url == to.url);
            let Some(found) = found else {
                return refused(format!(
                    "plan {} copies to archive {} at {}, which is not configured so any more; make a new one",
                    plan.id, to.name, to.url
                ));
            };
            check_provable(volume, wanted_graces.get(n).copied().unwrap_or(0))?;
            stores.push(Some(found.clone()));
        }
        Ok(stores)
    }
}

/// Whether anything proves that a copy is the file that is removed.
fn check_provable(volume: &Volume, wanted_grace: u64) -> Result<(), HostError> {
    let name = &volume.config.name;
    if !volume.watched.knows_own {
        return Err(HostError::Refused(format!(
            "volume {name} is watched by inotify, which does not tell the agent's reads from those of users: what it copies would count as \
             used. Rules with action = \"archive\" need another collector there (purgectl doctor)"
        )));
    }
    if volume.guard() != Guard::Leases && wanted_grace == 0 {
        return Err(HostError::Refused(format!(
            "volume {name} gives no leases, so that a file may change unseen between its copy and its removal: rules with action = \"archive\" \
             need a grace there, such as grace = \"7d\", and cannot be applied with --no-grace"
        )));
    }
    Ok(())
}

/// What copies for each rule of a run: rules with the same store share it.
pub(super) struct Copiers {
    /// In the order of the rules.
    pub of_rules: Vec<Option<Arc<dyn Copier>>>,
    all: Vec<Arc<Sender>>,
}

impl Copiers {
    /// Opens the stores of a run, and tries each.
    pub fn begin(
        plan: &Plan,
        stores: Vec<Option<Settings>>,
        (heading, state_dir): (&Heading, &Path),
    ) -> Result<Self, String> {
        let mut open: HashMap<String, Arc<Sender>> = HashMap::new();
        let mut of_rules: Vec<Option<Arc<dyn Copier>>> = Vec::new();
        for settings in stores {
            let Some(settings) = settings else {
                of_rules.push(None);
                continue;
            };
            let sender = match open.get(&settings.name) {
                Some(sender) => Arc::clone(sender),
                None => Arc::new(Sender::begin(plan, &settings, (heading, state_dir))?),
            };
            open.insert(settings.name, Arc::clone(&sender));
            of_rules.push(Some(sender));
        }
        Ok(Self {
            of_rules,
            all: open.into_values().collect(),
        })
    }

    /// The run is over, in this state.
    pub fn end(&self, state: &str) {
        self.all.iter().for_each(|sender| sender.end(state));
    }
}

/// Copies to one store.
struct Sender {
    name: String,
    archive: Archive,
    at_a_time: usize,
    rules: Vec<String>,
    heading: Heading,
    host: String,
}

impl Sender {
    fn begin(
        plan: &Plan,
        settings: &Settings,
        (heading, state_dir): (&Heading, &Path),
    ) -> Result<Self, String> {
        let why = |why: &dyn std::fmt::Display| format!("archive {}: {why}", settings.name);
        let store = archive::open(settings).map_err(|e| why(&e))?;
        check_identity(&*store, settings, state_dir).map_err(|e| why(&e))?;
        let archive = Archive::begin(store, &heading.volume, &heading.run);
        Ok(Self {
            archive: archive.map_err(|e| why(&e))?,
            name: settings.name.clone(),
            at_a_time: settings.concurrency,
            rules: plan.rule_names(),
            heading: heading.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        })
    }

    /// What the catalogue says of an entry, but for its content.
    fn line(&self, original: &Original<'_>) -> Result<Line, NotCopied> {
        let candidate = original.candidate;
        let is = original.open.metadata().map_err(NotCopied::Original)?;
        let (last_access, source) = catalogue::last_use(candidate.last);
        let line = Line {
            kind: kind_of(candidate.kind()).to_owned(),
            uid: is.uid(),
            gid: is.gid(),
            owner: user_name(is.uid()),
            group: group_name(is.gid()),
            mode: format!("{:04o}", is.mode() & 0o7777),
            mtime: catalogue::moment(is.mtime(), u32::try_from(is.mtime_nsec()).unwrap_or(0)),
            last_access,
            source: source.to_owned(),
            xattrs: match candidate.kind() {
                Kind::Symlink => BTreeMap::new(),
                _ => attributes(original.open)?,
            },
            names: original
                .names
                .iter()
                .map(|name| catalogue::encoded(name))
                .collect(),
            target: catalogue::encoded(original.target),
            rule: self
                .rules
                .get(usize::from(candidate.rule))
                .cloned()
                .unwrap_or_default(),
            run: self.heading.run.clone(),
            plan: self.heading.plan.clone(),
            volume: self.heading.volume.clone(),
            host: self.host.clone(),
            archived_at: catalogue::moment(clock::now().unix(), 0),
            ..Line::default()
        };
        Ok(line.at(&candidate.path()))
    }

    fn not_copied(&self, error: CopyError) -> NotCopied {
        let words = format!("archive {}: {error}", self.name);
        match error {
            CopyError::Source(error) => NotCopied::Original(error),
            // Users choose names.
            CopyError::NoPlace(_) => NotCopied::Kept(words),
            CopyError::Taken(_) | CopyError::Unfaithful(_) => NotCopied::Failed(words),
            CopyError::Broken(_) => NotCopied::Broken(words),
        }
    }
}

impl Copier for Sender {
    fn at_a_time(&self) -> usize {
        self.at_a_time
    }

    fn copy(&self, original: &Original<'_>) -> Result<Copy, NotCopied> {
        let candidate = original.candidate;
        let mut line = self.line(original)?;
        if candidate.shape != Shape::File {
            return Ok(Copy {
                key: String::new(),
                sha256: [0; 32],
                line: line.to_json(),
            });
        }
        let mut content = Content::of_file(original.open, candidate.size).map_err(NotCopied::Original)?;
        let copied = self.archive.copy(&candidate.path(), &mut content);
        let copied = copied.map_err(|error| self.not_copied(error))?;
        line.size = content.size();
        line.sha256 = hex(&copied.hash);
        line.found = copied.is_found;
        line.key.clone_from(&copied.key);
        Ok(Copy {
            key: copied.key,
            sha256: copied.hash,
            line: line.to_json(),
        })
    }

    fn write_down(&self, lines: Vec<u8>) -> Result<(), String> {
        let written = self.archive.write_down(lines);
        written.map_err(|why| format!("archive {}: {why}", self.name))
    }

    fn end(&self, state: &str) {
        if let Err(error) = self.archive.end(state) {
            tracing::warn!(run = %self.heading.run, archive = %self.name, %error, "the store does not know that the run is over");
        }
    }
}

/// A store that was used before must be the same: of a mount that is missing, only the empty directory below it is there, and what is copied
/// into that is lost to sight when the mount comes back.
fn check_identity(store: &dyn Store, settings: &Settings, state_dir: &Path) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let dir = state_dir.join("archives");
    let file = dir.join(&settings.name);
    // By the place as well: another one is another store.
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let known = known
        .split_once('\n')
        .filter(|(url, _)| *url == settings.url)
        .map(|(_, id)| id.trim().to_owned());
    let is = archive::identity(store).map_err(|e| words(&e))?;
    match (&known, is) {
        (Some(known), Some(is)) if *known == is => return Ok(()),
        (Some(_), _) => {
            return Err(format!(
                "{} is not the store that was used before: is it mounted? If another store is to be used there from now on, remove {}",
                settings.url,
                private::shown(&file).display()
            ));
        }
        (None, Some(_)) => {}
        (None, None) => archive::name(store, &new_id('s', clock::now())).map_err(|e| words(&e))?,
    }
    let is = archive::identity(store).map_err(|e| words(&e))?;
    let is = is.ok_or("the store does not keep what is written to it")?;
    let kept = private::dir(&dir)
        .and_then(|()| private::write(&file, format!("{}\n{is}\n", settings.url).as_bytes()));
    kept.map_err(|e| format!("the state directory: {e}"))
}

fn kind_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::File | Kind::Special => "file",
    }
}

fn attributes(file: &File) -> Result<BTreeMap<String, String>, NotCopied> {
    let all = likeness::all_attributes(file).map_err(NotCopied::Original)?;
    let too_many =
        || NotCopied::Kept("it has more extended attributes than the catalogue takes (256 KiB)".into());
    let all = all.ok_or_else(too_many)?.into_iter();
    let named = all.map(|(name, value)| match name.into_string() {
        Ok(name) => Ok((name, catalogue::encoded(&value))),
        Err(_) => Err(NotCopied::Kept(
            "an extended attribute has a name that is not UTF-8".into(),
        )),
    });
    named.collect()
}
