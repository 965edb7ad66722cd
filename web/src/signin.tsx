// Signing in: an API key is exchanged for a session that no script can read; or the identity provider is asked.
import { signal } from '@preact/signals';
import { useState } from 'preact/hooks';
import { ask, problemFrom, root, type Problem } from './api';
import { keepHash, leaving, place } from './router';
import { closed, ended, look, session, signsIn } from './session';
import { clock, zoneName } from './time';
import { Dialog, Failure } from './widgets';

/** Whether somebody wants to sign in, and why signing out has failed. */
const asks = signal(false);
const notOut = signal<Problem | null>(null);

/** Who has signed in, and the way out. */
export function Who() {
  const now = session.value;
  // Where the whole page asks, it asks once.
  if (!now?.accessControl || closed.value || ended.value) return null;
  if (now.principal) {
    return (
      <span class="who">
        <span title={now.principal.roles.join(', ')}>{now.principal.name}</span>{' '}
        <span class="muted">{now.principal.roles.join(', ') || 'no role'}</span>{' '}
        <button type="button" class="quiet" onClick={() => void signOut()}>Sign out</button>
      </span>
    );
  }
  return <button type="button" onClick={() => (asks.value = true)}>Sign in</button>;
}

/** What the buttons of the header open: a dialog stands in no header. */
export function WhoDialogs() {
  const [problem, close] = [notOut.value, () => void (asks.value = false)];
  return (
    <>
      {asks.value && <Dialog title="Sign in" close={close}><Form done={close} /></Dialog>}
      {problem && (
        <Dialog title="You are still signed in" close={() => (notOut.value = null)}>
          <p>Signing out has failed, and whoever uses this browser is you.</p>
          <Failure problem={problem} again={() => void signOut()} />
        </Dialog>
      )}
    </>
  );
}

/** Over the page of who was at work when the session ended. */
export function Ended() {
  const over = ended.value;
  if (!over) return null;
  const close = () => void (signsIn.value = false);
  return (
    <>
      <div class="note ended" role="alert">
        <p>
          <strong>The session of {over.name} has ended.</strong> What is shown is as of {clock(over.over)} {zoneName(over.over)}, and nothing is asked for until you
          sign in again. What you have written stays.{' '}
          <button type="button" class="primary" onClick={() => (signsIn.value = true)}>Sign in again</button>
        </p>
      </div>
      {signsIn.value && <Dialog title="Sign in again" close={close}><Form done={close} /></Dialog>}
    </>
  );
}

/** A failure of it is said, for the session goes on. */
async function signOut() {
  if (leaving.ask && !leaving.ask()) return;
  try {
    await ask('/session', { method: 'DELETE' });
    leaving.ask = null;
    // Nothing of what was seen stays in the tab.
    window.location.reload();
  } catch (error) {
    notOut.value = problemFrom(error);
  }
}

/** The whole page, where nothing is shown before. */
export function SignIn() {
  return (
    <section class="signin">
      <h1>Sign in</h1>
      <Form done={() => undefined} />
    </section>
  );
}

/** This page, as it is called below the API. */
function here(): string {
  return `/${(window.location.pathname + window.location.search).slice(root.pathname.length)}`;
}

const NOT_SIGNED_IN: { [why: string]: string } = {
  refused: 'The identity provider has not signed you in, or with an account that is not for this service.',
  unavailable: 'The identity provider does not answer as it should. Try again in a moment; the log of StreamView says why.',
};

function Form({ done }: { done: () => void }) {
  const [key, setKey] = useState('');
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const ways = session.value?.signIn;
  const enter = async (event: Event) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    setProblem(null);
    try {
      await ask('/session', { method: 'POST', body: { apiKey: key.trim() } });
      const goesOn = ended.peek() !== null;
      await look();
      done();
      if (!goesOn) window.location.reload();
    } catch (error) {
      setProblem(problemFrom(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      {NOT_SIGNED_IN[place.value.hash.get('signIn') ?? ''] && <p class="note" role="alert">{NOT_SIGNED_IN[place.value.hash.get('signIn')!]}</p>}
      {ways?.provider && (
        <>
          <p><a class="button primary" href={new URL(`session/login?to=${encodeURIComponent(here())}`, root).href} target={ended.value ? '_blank' : '_self'} rel="noopener" onClick={() => ended.value || keepHash()}>Sign in at {ways.provider}</a></p>
          {ended.value && <p class="small muted">It opens in a tab of its own. Come back to this one when you are signed in: all that is written here is still there.</p>}
        </>
      )}
      {ways?.provider && ways.apiKey && <p class="muted">or with a key:</p>}
      {ways?.apiKey && (
        <form onSubmit={enter}>
          <label class="field">
            <span>API key</span>
            <input type="password" autocomplete="off" required value={key} placeholder="svk_…" onInput={(event) => setKey(event.currentTarget.value)} />
          </label>
          <p class="small muted">An operator makes one with <code>streamview apikey create --name NAME --role reader</code>. It is sent once and then
            stands for this browser's session; no page can read it back.</p>
          {problem && <Failure problem={problem} />}
          <p><button type="submit" class={ways.provider ? '' : 'primary'} aria-disabled={busy}>{busy ? 'Signing in …' : 'Sign in'}</button></p>
        </form>
      )}
      {!ways?.provider && !ways?.apiKey && <p>Neither API keys nor a provider that a browser can be sent to are configured; see <code>auth</code> in the settings.</p>}
    </>
  );
}
