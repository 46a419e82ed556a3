//! A scene that the tests of one program use in turn: building one takes longer than some of them. Most are in `tests/tests/in_turn/`.
//!
//! Tests run beside each other, so that the next one waits while one has the scene. What the one leaves is cleared away before the
//! next one begins; where that fails, and where a test has failed, the next one gets a scene that is built anew. A test that runs alone,
//! or when nobody waits, builds its own and takes it down, so that none depends on another.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::Result;

use super::{HostSpec, Scene};

/// The scene of whoever has the turn. Between two turns it holds one only while somebody waits for it.
static SCENE: Mutex<Option<Scene>> = Mutex::new(None);
/// How many tests wait for their turn.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// A scene for as long as a test has its turn. For tests that end with links plugged in and power devices well, and that ask for
/// nothing but what has happened since they have begun.
pub struct Lent(MutexGuard<'static, Option<Scene>>);

impl Lent {
    /// Three voters; the guest runs on one of them.
    ///
    /// # Errors
    /// When a scene is built and does not come up.
    pub fn three() -> Result<Self> {
        Self::of(HostSpec::three())
    }

    /// These hosts; the guest runs on one of them.
    ///
    /// # Errors
    /// As [`Lent::three`].
    pub fn of(hosts: Vec<HostSpec>) -> Result<Self> {
        let mut turn = turn();
        // Out of the lock, where it would outlive a panic. What is not fit is taken down before another one is built: two would not
        // get the processors that one needs.
        let left = turn.take().filter(|scene| scene.lab.hosts() == hosts);
        let scene = match left.and_then(begun_again) {
            Some(scene) => scene,
            None => Scene::with(hosts, "")?,
        };
        *turn = Some(scene);
        Ok(Self(turn))
    }
}

/// The scene as it was in the beginning; none where it does not come back to that, which its logs may explain.
fn begun_again(mut scene: Scene) -> Option<Scene> {
    let Err(error) = scene.begin_again() else { return Some(scene) };
    eprintln!("what the test before has left is not fit for this one: {error:#}");
    scene.show_logs();
    None
}

fn turn() -> MutexGuard<'static, Option<Scene>> {
    WAITING.fetch_add(1, Ordering::SeqCst);
    // A test that has failed has taken its scene with it.
    let turn = SCENE.lock().unwrap_or_else(PoisonError::into_inner);
    WAITING.fetch_sub(1, Ordering::SeqCst);
    turn
}

impl Deref for Lent {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        let Some(scene) = self.0.as_ref() else { unreachable!("it is there until the turn is over") };
        scene
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Scene {
        let Some(scene) = self.0.as_mut() else { unreachable!("it is there until the turn is over") };
        scene
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(scene) = self.0.take() else { return };
        if thread::panicking() || WAITING.load(Ordering::SeqCst) == 0 {
            // Dropped here, with all that it checks or shows then.
            return;
        }
        scene.no_image_had_two_writers();
        *self.0 = Some(scene);
    }
}
