use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn session(number: u32) -> SessionId {
    SessionId::of("test", &number.to_be_bytes())
}

fn known(server: &str) -> Known {
    Known { server: ServerName::of(server), confirmed: None }
}

fn table(sessions: usize, idle: u64) -> Memory {
    Memory::new(sessions, Duration::from_secs(idle))
}

#[test]
fn a_session_is_remembered_until_it_is_idle() {
    let memory = table(1000, 10);
    assert_eq!(memory.find(session(1), Second(0)), None);
    memory.learn(session(1), known("a"), Second(0));
    // Each use counts.
    for second in [10, 20, 30] {
        assert_eq!(memory.find(session(1), Second(second)), Some(known("a")), "second {second}");
    }
    memory.learn(session(1), known("b"), Second(35));
    assert_eq!(memory.find(session(1), Second(45)), Some(known("b")));
    // A clock read before a lock was got may be behind.
    assert_eq!(memory.find(session(1), Second(44)), Some(known("b")));
    assert_eq!(memory.find(session(1), Second(56)), None);
    assert_eq!(memory.find(session(1), Second(45)), None);
    assert!(memory.is_empty());
}

#[test]
fn a_confirmation_is_remembered() {
    let memory = table(1000, 10);
    for confirmed in [None, Some(Second(0)), Some(Second(7))] {
        let known = Known { confirmed, ..known("a") };
        memory.learn(session(1), known, Second(7));
        assert_eq!(memory.find(session(1), Second(8)), Some(known));
    }
}

#[test]
fn idle_is_never_cut_short() {
    for (idle, seconds) in [(1000, 1), (1001, 2), (999, 1), (86_400_000, 86_400)] {
        assert_eq!(seconds_up(Duration::from_millis(idle)), seconds, "{idle} ms");
    }
}

#[test]
fn what_is_used_outlives_what_is_not() {
    let memory = table(10_000, 1_000_000);
    for number in 0..5_000 {
        memory.learn(session(number), known("a"), Second(0));
    }
    // Passers-by fill the table ten times over, while some come back now and then.
    let mut passer_by = 1_000_000;
    for second in 1..200 {
        for number in 0..1_000 {
            memory.find(session(number), Second(second));
        }
        for _ in 0..500 {
            passer_by += 1;
            memory.learn(session(passer_by), known("a"), Second(second));
        }
    }
    let kept =
        |range: std::ops::Range<u32>| range.filter(|it| memory.find(session(*it), Second(200)).is_some()).count();
    assert!(kept(0..1_000) > 990, "{} of those who come back", kept(0..1_000));
    assert!(kept(1_000..5_000) < 40, "{} of those who do not", kept(1_000..5_000));
}

#[test]
fn a_full_table_tells_when_the_living_must_go() {
    let memory = table(1600, 10);
    let evicted = (0..3200).filter(|it| memory.learn(session(*it), known("a"), Second(0))).count();
    assert!(memory.len() <= 1600 && evicted == 3200 - memory.len(), "{evicted} of {}", memory.len());
    // Those who are dead do not count.
    let evicted = (3200..3300).filter(|it| memory.learn(session(*it), known("a"), Second(11))).count();
    assert_eq!(evicted, 0);
}

#[test]
fn the_expired_give_their_memory_back() {
    let memory = table(1_000_000, 10);
    for number in 0..20_000 {
        memory.learn(session(number), known("a"), Second(0));
    }
    let full = bytes(&memory);
    // One session a second, each alive for ten, after a rush of the dead.
    for number in 0..20_000 {
        memory.learn(session(1_000_000 + number), known("a"), Second(100 + number));
    }
    assert!(memory.len() < 200, "{} sessions", memory.len());
    assert!(bytes(&memory) < full / 10, "{} bytes of {full}", bytes(&memory));
}

#[test]
fn a_session_takes_some_forty_bytes() {
    // The index doubles at 57,344: seven eighths of a power of two in each shard.
    for (sessions, least, most) in [(10_000, 38, 46), (55_000, 38, 39), (60_000, 42, 44)] {
        let memory = table(2_000_000, 10);
        for number in 0..sessions {
            memory.learn(session(number), known("a"), Second(0));
        }
        let each = bytes(&memory) / sessions as usize;
        assert!((least..=most).contains(&each), "{each} bytes for each of {sessions}");
    }
}

/// What the table has allocated, as far as its parts tell.
fn bytes(memory: &Memory) -> usize {
    let shard = |shard: &Mutex<Shard>| {
        let shard = shard.lock().unwrap();
        let entries: usize = shard.entries.chunks.iter().map(|chunk| chunk.capacity() * size_of::<Entry>()).sum();
        shard.index.allocation_size() + entries + shard.entries.chunks.capacity() * size_of::<Vec<Entry>>()
    };
    memory.shards.iter().map(shard).sum()
}

#[derive(Clone, Debug)]
enum Step {
    Find(u32),
    Learn(u32, bool),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..60_u32).prop_map(Step::Find),
        4 => (0..60_u32, any::<bool>()).prop_map(|(number, server)| Step::Learn(number, server)),
        1 => (0..8_u32).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_as_a_plain_map(steps in prop::collection::vec(step(), 0..400), sessions in 16..2000_usize) {
        let memory = table(sessions, 10);
        let mut model: HashMap<u32, (Known, u32)> = HashMap::new();
        let mut now = 0;
        // A small table may forget early, but may never be wrong.
        let is_roomy = sessions >= 60 * Memory::SHARDS;
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Learn(number, server) => {
                    let known = known(if server { "a" } else { "b" });
                    memory.learn(session(number), known, Second(now));
                    model.insert(number, (known, now));
                }
                Step::Find(number) => {
                    let found = memory.find(session(number), Second(now));
                    let alive = model.get(&number).filter(|(_, used)| now - used <= 10).map(|(known, _)| *known);
                    prop_assert!(found == alive || (found.is_none() && !is_roomy), "{number}: {found:?}, not {alive:?}");
                    match found {
                        Some(known) => model.insert(number, (known, now)),
                        None => model.remove(&number),
                    };
                }
            }
            prop_assert!(memory.len() <= sessions.max(Memory::SHARDS));
            for shard in &memory.shards {
                let shard = shard.lock().unwrap();
                prop_assert_eq!(shard.index.len(), shard.entries.len);
                prop_assert!(shard.entries.chunks.len() <= shard.entries.len / Entries::CHUNK + 2);
            }
        }
    }
}
