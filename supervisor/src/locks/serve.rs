//! Answers for this host: takes locks, looks at locks.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use holdfast_policies::observe::clean;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{Answers, Found, HOLD_MAX, IMAGES_MAX, Question};
use crate::qemu::locks::{KernelLocks, Locker};

/// The byte that is locked. QEMU uses 100 to 299, and 400 is the one that a host tries for itself.
const BYTE: i64 = 401;

/// Surveys that are served at once: one of each voter that thinks it leads. It bounds the files that are held open.
const AT_ONCE: usize = 4;

/// How long the storage may take. Coordinators wait no longer.
const DEADLINE: Duration = Duration::from_millis(700);

/// What holds locks for coordinators.
pub struct Keeper {
    places: Arc<Semaphore>,
    /// [`DEADLINE`], but in tests.
    deadline: Duration,
}

impl Default for Keeper {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), deadline: DEADLINE }
    }
}

impl Keeper {
    /// Answers one question.
    ///
    /// # Errors
    /// When it is no sensible question, or cannot be answered now.
    pub async fn answer(&self, question: Question) -> Result<Answers, String> {
        let (Question::Hold { images } | Question::Look { images }) = &question;
        if images.len() > IMAGES_MAX || !images.iter().all(|image| image.is_absolute()) {
            return Err(format!("a question is about at most {IMAGES_MAX} images, each by its absolute path"));
        }
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let permit = permit.map_err(|_| format!("{AT_ONCE} such questions are being answered already"))?;
        let answered = timeout(self.deadline, spawn_blocking(move || (try_all(&question), permit)));
        match answered.await {
            Ok(Ok(((answers, held), permit))) => {
                keep(held, permit);
                Ok(answers)
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the storage did not answer within {:?}", self.deadline)),
        }
    }
}

fn keep(held: Vec<File>, permit: OwnedSemaphorePermit) {
    if !held.is_empty() {
        tokio::spawn(async move {
            sleep(HOLD_MAX).await;
            drop((held, permit));
        });
    }
}

fn try_all(question: &Question) -> (Answers, Vec<File>) {
    let mut held = Vec::new();
    let answers = match question {
        Question::Hold { images } => images.iter().map(|image| hold(&KernelLocks, image, &mut held)).collect(),
        Question::Look { images } => images.iter().map(|image| look(&KernelLocks, image)).collect(),
    };
    (answers, held)
}

fn hold(locker: &dyn Locker, image: &Path, held: &mut Vec<File>) -> Found {
    let Some(file) = open(image) else { return Found::Silent };
    match locker.hold(&file, BYTE) {
        Ok(()) => {
            held.push(file);
            Found::Locked
        }
        Err(error) => Found::Refused { detail: clean(&error.to_string()) },
    }
}

fn look(locker: &dyn Locker, image: &Path) -> Found {
    let Some(file) = open(image) else { return Found::Silent };
    match locker.is_held(&file, BYTE) {
        Ok(true) => Found::Locked,
        Ok(false) => Found::NotLocked,
        Err(error) => Found::Refused { detail: clean(&error.to_string()) },
    }
}

/// Opens an image, and nothing that is not a plain file: opening a device or a pipe can do something.
fn open(image: &Path) -> Option<File> {
    let image: PathBuf = std::fs::canonicalize(image).ok()?;
    if !std::fs::metadata(&image).ok()?.is_file() {
        return None;
    }
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&image).ok()?;
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One for a machine so busy that its storage seems to be.
    fn keeper() -> Keeper {
        Keeper { deadline: Duration::from_secs(20), ..Keeper::default() }
    }

    #[tokio::test]
    async fn a_lock_that_one_host_holds_is_seen_by_another_and_a_copy_of_the_image_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let (image, copy, none) = (folder.path().join("image"), folder.path().join("copy"), folder.path().join("none"));
        std::fs::write(&image, "x").unwrap();
        std::fs::write(&copy, "x").unwrap();
        let (one, other) = (keeper(), keeper());
        let held = one.answer(Question::Hold { images: vec![image.clone(), none.clone()] }).await.unwrap();
        assert_eq!(held, [Found::Locked, Found::Silent]);
        let seen = other.answer(Question::Look { images: vec![image, copy, none] }).await.unwrap();
        assert_eq!(seen, [Found::Locked, Found::NotLocked, Found::Silent]);
    }

    #[tokio::test]
    async fn questions_without_bound_or_sense_are_refused() {
        let keeper = keeper();
        let many = vec![PathBuf::from("/srv/image"); IMAGES_MAX + 1];
        assert!(keeper.answer(Question::Look { images: many }).await.is_err());
        assert!(keeper.answer(Question::Hold { images: vec![PathBuf::from("image")] }).await.is_err());
        // A device is not opened.
        let device = Question::Hold { images: vec![PathBuf::from("/dev/null")] };
        assert_eq!(keeper.answer(device).await.unwrap(), [Found::Silent]);
    }

    #[tokio::test]
    async fn what_is_held_at_once_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, "x").unwrap();
        let keeper = keeper();
        for _ in 0..AT_ONCE {
            assert_eq!(keeper.answer(Question::Hold { images: vec![image.clone()] }).await.unwrap(), [Found::Locked]);
        }
        assert!(keeper.answer(Question::Hold { images: vec![image] }).await.is_err());
    }
}
