//! What the pure core costs as a stack grows: time and memory of reading, compiling and planning
//! specs of 100, 1,000 and 10,000 containers. `cargo bench --bench plan` prints the table.
//!
//! Each line is the median of several runs. `memory` is the most that was allocated at one
//! moment beyond what was there before. `growth` compares the step to the last size with n log n,
//! for which it is 1; from 1,000 to 10,000 a cost in n² shows as 7.5. A stack that does not fit into the processor's
//! cache any more costs more as well, once; other sizes, named on one side of that step, tell the
//! two apart: `cargo bench --bench plan -- 2500 5000 10000`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

#[path = "../support/model.rs"]
mod model;

use hatchery::graph;
use hatchery::plan::memory::Down;
use model::{Model, compiled, inputs, read};

/// How many containers.
const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// Groups that the containers are divided into, each with a network and a service of its own.
const GROUPS: usize = 10;
/// Runs of one measurement at most, and how long they may take together.
const RUNS: usize = 15;
const BUDGET: Duration = Duration::from_secs(3);

/// Counts what is allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is; counting touches no memory
// of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises about `layout` are the ones that are asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `at` came from `alloc` above with this layout, so the system's gave it.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What one thing costs.
#[derive(Clone, Copy)]
struct Cost {
    time: Duration,
    bytes: usize,
}

/// Time of the processor that this thread took so far: what else runs on the machine is no
/// part of it.
fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

/// The median time of several runs, and the most memory that one took.
fn measure<T>(mut act: impl FnMut() -> T) -> Cost {
    let began = Instant::now();
    let mut times = Vec::new();
    let mut bytes = 0;
    while times.len() < RUNS && (times.len() < 3 || began.elapsed() < BUDGET) {
        let before = NOW.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let start = spent();
        let result = black_box(act());
        times.push(spent().saturating_sub(start));
        bytes = bytes.max(MOST.load(Ordering::Relaxed) - before);
        drop(result);
    }
    times.sort();
    let time = times[times.len() / 2];
    Cost { time, bytes }
}

/// A farm of `count` containers; `lone` is the command of one that stands for itself.
fn farm(count: usize, lone: &str) -> String {
    let mut networks = String::new();
    let mut containers = String::new();
    let mut services = String::new();
    for (number, letter) in ('a'..'k').enumerate() {
        let replicas = count / GROUPS;
        let _ = writeln!(networks, "  net-{letter}: {{ subnet: 10.{number}.0.0/16 }}");
        let _ = writeln!(
            containers,
            "  web-{letter}:
    replicas: {replicas}
    root: host
    network: net-{letter}
    mounts: [ \"./work.py:/srv/work.py:ro\" ]
    watch: [ ./work.py ]
    command: [ /usr/bin/python3, /srv/work.py, \"{{{{ name }}}}\" ]
    environment: {{ SELF: \"{{{{ address }}}}\" }}
    firewall: {{ allow_tcp: [ 8080 ], allow_ping: true }}
    restart: {{ policy: on-failure, delay: 1s }}"
        );
        let _ = writeln!(
            services,
            "  web-{letter}: {{ target: containers/web-{letter}, port: 8080, tags: [ nginx ], \
             checks: [ answers ] }}"
        );
    }
    format!(
        "name: farm
registry:
  embedded: {{}}
networks:
{networks}containers:
{containers}  lone: {{ root: host, network: net-a, command: [ {lone} ] }}
services:
{services}checks:
  answers: {{ http: \"http://{{{{ address }}}}:{{{{ port }}}}/healthz\", interval: 5s }}
templates:
  upstream:
    source: ./upstream.j2
    destination: /etc/nginx/upstream.conf
    validate: [ nginx, -t ]
    reload: {{ process: nginx, signal: SIGHUP, confirm: new_child }}
processes:
  nginx:
    command: [ nginx, -g, \"daemon off;\" ]
    ready: {{ tcp: 127.0.0.1:80 }}
    depends_on: [ templates/upstream ]
"
    )
}

const UPSTREAM: &str = "{% for letter in 'abcdefghij' %}upstream {{ letter }} {\n\
     {% for i in service('web-' ~ letter, tag='nginx') %}    server {{ i.address }}:{{ i.port }};\n\
     {% endfor %}}\n{% endfor %}";

fn costs(count: usize) -> Vec<(&'static str, Cost)> {
    let templates = BTreeMap::from([("upstream.j2", UPSTREAM)]);
    let text = farm(count, "/bin/old");
    let mut costs = Vec::new();
    costs.push(("parse and validate", measure(|| read(&text).unwrap())));
    let (spec, places) = read(&text).unwrap();
    let around = inputs("farm", &templates);
    let compile = || graph::compile(&spec, &places, &around).unwrap();
    costs.push(("compile", measure(compile)));
    let desired = compile();
    costs.push(("clone what is wanted", measure(|| desired.clone())));

    let mut model = Model::new(desired, &templates);
    model.keeps = false;
    costs.push(("plan from scratch", measure(|| model.plan())));
    model.converge(200).expect("the farm converges");
    model.look();
    assert!(model.plan().is_empty());
    costs.push(("plan nothing", measure(|| model.plan())));
    let (catalog, files) = (&model.observed.catalog, &model.observed.inputs);
    let render = || hatchery::template::render("upstream.j2", UPSTREAM, catalog, files).unwrap();
    costs.push(("  of which the template", measure(render)));

    let edited = compiled(&farm(count, "/bin/new"), &templates);
    let old = std::mem::replace(&mut model.desired, edited);
    let plan = model.plan();
    assert_eq!(plan.items.len(), 1, "one edit is one action");
    costs.push(("plan after one edit", measure(|| model.plan())));

    let changed = farm(count, "/bin/old").replace("policy: on-failure", "policy: always");
    let rolled = changed.replace("/srv/work.py, \"", "/srv/work.py, -u, \"");
    model.desired = compiled(&rolled, &templates);
    assert!(model.plan().items.len() >= count);
    costs.push(("plan a roll of everything", measure(|| model.plan())));

    let larger = text.replacen(
        &format!("replicas: {}", count / GROUPS),
        &format!("replicas: {}", count / GROUPS - 1),
        1,
    );
    model.desired = compiled(&larger, &templates);
    costs.push(("plan after one left", measure(|| model.plan())));

    model.desired = old;
    model.memory.down = Some(Down { kill: false });
    costs.push(("plan to take it down", measure(|| model.plan())));
    costs
}

fn words(cost: Cost) -> String {
    let time = cost.time.as_secs_f64() * 1e3;
    let mib = cost.bytes as f64 / f64::from(1 << 20);
    format!("{time:>9.2} ms {mib:>7.1} MiB")
}

fn main() {
    let asked: Vec<usize> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let sizes = if asked.is_empty() {
        SIZES.to_vec()
    } else {
        asked
    };
    let table: Vec<_> = sizes.iter().map(|size| costs(*size)).collect();
    print!("{:<26}", "containers");
    for size in &sizes {
        print!("{size:>24}");
    }
    println!("{:>9}", "growth");
    for (line, (what, _)) in table[0].iter().enumerate() {
        let costs: Vec<Cost> = table.iter().map(|column| column[line].1).collect();
        print!("{what:<26}");
        for cost in &costs {
            print!("{:>24}", words(*cost));
        }
        println!("{:>9}", growth(&sizes, &costs));
    }
}

/// How the last two times stand to each other, against n log n.
fn growth(sizes: &[usize], costs: &[Cost]) -> String {
    let ([.., less, more], [.., before, after]) = (sizes, costs) else {
        return String::new();
    };
    let work = |size: &usize| *size as f64 * (*size as f64).ln();
    let times = after.time.as_secs_f64() / before.time.as_secs_f64();
    format!("{:.2}", times / (work(more) / work(less)))
}
