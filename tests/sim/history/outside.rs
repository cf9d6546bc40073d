//! What people and chance do to a host while a controller works on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hatchery::reconcile::handle::Verb;

use super::{Run, text_hash};
use crate::faults::{Action, Fault};
use crate::specs::{Model, SPEC, STACK};
use crate::world::{Happening, SECOND, World};

/// What may happen from outside, by its weight in the seed's table.
const DEEDS: &[Fault] = &[
    Fault::Crash,
    Fault::Reboot,
    Fault::Suspend,
    Fault::WallJump,
    Fault::EditValid,
    Fault::EditBack,
    Fault::EditInvalid,
    Fault::EditEmpty,
    Fault::EditHalf,
    Fault::EditWatched,
    Fault::EditSource,
    Fault::EditBadSource,
    Fault::EditRendered,
    Fault::Operate,
    Fault::Down,
    Fault::Leave,
    Fault::Meddle,
    Fault::Stranger,
];

impl Run {
    /// One deed, and when the next one follows.
    pub(super) fn outside(&mut self) {
        let deed = {
            let mut world = self.world.lock();
            if !world.faults.on {
                return;
            }
            let slow = world.rng.chance(400);
            let pause = match slow {
                true => world.rng.millis(5_000, 15_000),
                false => world.rng.millis(5, 5_000),
            };
            world.after(pause, Happening::Outside);
            choose(&mut world)
        };
        // Every history has its edits.
        let deed = match self.world.lock().rng.chance(250) {
            true => Fault::EditValid,
            false => deed,
        };
        if self.does(deed) {
            self.world.lock().note(deed, Action::Outside);
        }
    }

    /// Does it; whether it came to anything.
    fn does(&mut self, deed: Fault) -> bool {
        let up = self.controller.is_some();
        match deed {
            Fault::Crash if up => self.crash(),
            Fault::Leave if up => self.leave(),
            Fault::Down if up => {
                let kill = self.world.lock().rng.chance(200);
                self.take_down(kill);
            }
            Fault::Crash | Fault::Leave | Fault::Down => return false,
            Fault::Reboot => self.reboot(),
            Fault::Suspend => self.suspend(),
            Fault::WallJump => self.world.lock().jump(),
            Fault::Operate => return self.request(),
            Fault::Meddle => {
                let mut world = self.world.lock();
                world.meddled_at = Some(world.now);
                return world.meddle();
            }
            Fault::Stranger => return self.stranger(),
            Fault::EditWatched => return self.edit_watched(),
            Fault::EditRendered => return self.edit_rendered(),
            Fault::EditSource | Fault::EditBadSource => return self.edit_source(deed),
            _ => {
                let edited = self.edit(deed);
                self.edits += u64::from(edited);
                return edited;
            }
        }
        true
    }

    fn reboot(&mut self) {
        if self.controller.is_some() {
            self.crash();
        }
        let mut world = self.world.lock();
        world.log(format_args!("the host reboots"));
        world.reboot();
    }

    /// Whether it is a change of something that somebody watches.
    fn edit_watched(&mut self) -> bool {
        let mut world = self.world.lock();
        let number = world.rng.range(0, 1);
        let path = format!("/spec/watched{number}");
        let text = format!("text {}", world.rng.range(0, 5));
        let before = world.files.get(Path::new(&path)).map(|file| &file.text);
        let changes = before != Some(&text);
        world.log(format_args!("edits {path}"));
        world.save(&path, text);
        let name = format!("./watched{number}");
        let mut works = self.model.works.iter();
        changes && works.any(|work| work.watch.contains(&name))
    }

    fn suspend(&mut self) {
        let mut world = self.world.lock();
        let long = world.rng.range(5, 400) * SECOND;
        world.log(format_args!("suspended for {} s", long / SECOND));
        world.now += long;
        world.blind_at = Some(world.now);
    }

    /// Whether another spec came of it.
    fn edit(&mut self, deed: Fault) -> bool {
        let before = self.model.clone();
        self.revisions += 1;
        let text = match deed {
            Fault::EditBack => {
                let past = {
                    let mut world = self.world.lock();
                    world.rng.pick(&self.past).clone()
                };
                self.model = (*past).clone();
                self.model.yaml()
            }
            Fault::EditEmpty => {
                let text = format!("name: {STACK}\n");
                let empty = Model {
                    revision: 0,
                    http: None,
                    networks: Vec::new(),
                    works: Vec::new(),
                    services: Vec::new(),
                    templates: Vec::new(),
                };
                let mut world = self.world.lock();
                world.models.insert(text_hash(&text), empty.into());
                text
            }
            _ => {
                let mut model = self.model.clone();
                {
                    let mut world = self.world.lock();
                    model.edit(&mut world.rng);
                    model.revision = self.revisions;
                }
                self.model = model;
                self.publish()
            }
        };
        self.write_sources();
        let mut world = self.world.lock();
        let revision = self.model.revision;
        world.log(format_args!("{}: revision {revision}", deed.words()));
        let saved = world.files.get(Path::new(SPEC)).map(|file| &file.text);
        let other = match deed {
            Fault::EditValid => !before.means(&self.model),
            _ => saved != Some(&text),
        };
        match deed {
            Fault::EditInvalid => world.save(SPEC, format!("{text}processes: [\n")),
            Fault::EditHalf => {
                let cut = world.rng.index(text.len());
                let half = text.get(..cut).unwrap_or_default().to_owned();
                world.put(SPEC.into(), half, None);
                world.unsettled.insert(SPEC.into());
                let pause = world.rng.millis(1, 1_500);
                world.after(pause, Happening::Saved(SPEC.into(), text));
            }
            Fault::EditValid if world.rng.chance(150) => {
                let apply = world.rng.chance(500);
                drop(world);
                if !apply {
                    self.ask_for_plan(text);
                    return false;
                }
                return self.apply(text, false) && other;
            }
            _ => world.save(SPEC, text),
        }
        other
    }

    fn edit_source(&mut self, deed: Fault) -> bool {
        if self.model.templates.is_empty() {
            return false;
        }
        let mut world = self.world.lock();
        let at = world.rng.index(self.model.templates.len());
        let template = &mut self.model.templates[at];
        template.version += 1;
        let text = match deed {
            Fault::EditSource => template.text(),
            _ => match world.rng.chance(500) {
                true => format!("{}BAD", template.text()),
                false => "{% for".to_owned(),
            },
        };
        let path = template.source();
        world.log(format_args!("{}: {path}", deed.words()));
        world.save(&path, text);
        true
    }

    /// Somebody edits, replaces or removes a file that we rendered.
    fn edit_rendered(&mut self) -> bool {
        let mut world = self.world.lock();
        let paths: Vec<PathBuf> = world
            .files
            .iter()
            .filter(|(_, file)| file.mark.is_some())
            .map(|(path, _)| path.clone())
            .collect();
        if paths.is_empty() {
            return false;
        }
        let path = world.rng.pick(&paths).clone();
        let way = world.rng.range(0, 3);
        world.strangers_at = Some(world.now);
        world.log(format_args!(
            "somebody edits `{}`, way {way}",
            path.display()
        ));
        let mark = world.files.get(&path).and_then(|file| file.mark.clone());
        let text = world.files.get(&path).map(|file| file.text.clone());
        match way {
            0 => {
                world.files.remove(&path);
            }
            1 => {
                let text = "# by hand\n".to_owned();
                world.put(path.clone(), text, None);
            }
            _ => {
                let text = format!("{}# by hand\n", text.unwrap_or_default());
                world.put(path.clone(), text, mark);
            }
        }
        world.after(Duration::from_millis(250), Happening::Settled(path));
        true
    }

    /// Something of somebody else comes, or goes, unless it is so already.
    fn stranger(&mut self) -> bool {
        let mut world = self.world.lock();
        world.strangers_at = Some(world.now);
        let way = world.rng.range(0, 3);
        world.log(format_args!("a stranger, way {way}"));
        let changes = match way {
            0 => {
                let name = format!("net{}", world.rng.range(0, 1));
                world.foreign_bridge(&name)
            }
            1 => {
                let number = world.rng.range(1, 5);
                let name = format!("hatchery-{STACK}-ca{number}");
                world.foreign_namespace(&name)
            }
            2 => {
                let port = *world.rng.pick(&[80, 8500, 9000]);
                world.held_ports.insert(port)
            }
            _ => {
                let before = world.strange();
                world.held_ports.clear();
                world.net.bridges.retain(|_, bridge| bridge.ours);
                world
                    .net
                    .namespaces
                    .retain(|_, space| space.foreign.is_none());
                before > 0
            }
        };
        world.tell(hatchery::driver::Event::Network);
        changes
    }

    /// Whether a controller does as it is asked.
    fn request(&mut self) -> bool {
        let (verb, name) = {
            let mut world = self.world.lock();
            let verb = *world
                .rng
                .pick(&[Verb::Restart, Verb::Restart, Verb::Stop, Verb::Start]);
            let Some(model) = world
                .in_force
                .clone()
                .filter(|model| !model.works.is_empty())
            else {
                return false;
            };
            let work = world.rng.pick(&model.works);
            let nodes = work.instances();
            let name = match nodes.is_empty() || world.rng.chance(400) {
                true => work.name.clone(),
                false => world.rng.pick(&nodes).to_string(),
            };
            (verb, name)
        };
        self.operate(verb, vec![name])
    }
}

fn choose(world: &mut World) -> Fault {
    let total: u64 = DEEDS.iter().map(|deed| world.faults.rate(*deed)).sum();
    if total == 0 {
        return Fault::EditValid;
    }
    let mut at = world.rng.range(0, total - 1);
    for deed in DEEDS {
        let rate = world.faults.rate(*deed);
        if at < rate {
            return *deed;
        }
        at -= rate;
    }
    Fault::EditValid
}
