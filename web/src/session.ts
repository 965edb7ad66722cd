// Who looks at this: what the API says of it, signing in and out, and what somebody may.
import { computed, effect, signal, untracked } from '@preact/signals';
import { ask, halted, refused, returned } from './api';
import { lines } from './live';
import { leaving } from './router';

export interface Session {
  /** Whether callers log in here at all. */
  accessControl: boolean;
  /** How one can sign in. */
  signIn: { apiKey: boolean; provider: string | null };
  /** Who it is; null: nobody has signed in. */
  principal: { name: string; roles: string[] } | null;
  /** What may be done, as the names of policies. */
  may: string[];
}

export const session = signal<Session | null>(null);

/** After a look that failed. */
const LOOK_AGAIN = 2000;
let again = 0;
let failed = false;

/** Looks who that is. Where nobody answers, what was known stays, and it is looked again until somebody does. */
export async function look(): Promise<void> {
  window.clearTimeout(again);
  try {
    session.value = (await ask<Session>('/session')).data;
    // What was asked for meanwhile has had no answer either.
    if (failed) returned.value += 1;
    failed = false;
  } catch {
    failed = true;
    window.clearTimeout(again);
    again = window.setTimeout(look, LOOK_AGAIN);
  }
}

/** What a button needs. */
export type Right = 'read' | 'define' | 'runStreams' | 'operate' | 'decide' | 'administer';

const roleOf: Record<Right, string> = {
  read: 'reader', define: 'developer', runStreams: 'developer or operator', operate: 'operator', decide: 'operator', administer: 'admin',
};

/** Whether somebody is asked to sign in again. */
export const signsIn = signal(false);

/** Who was signed in here last and might do what, and since when that is over; 0: it is not. */
const last = signal<{ name: string; may: string[]; over: number } | null>(null);

/** The session ended while somebody was at work: whose, and when it was seen. */
export const ended = computed(() => (last.value?.over ? last.value : null));

/** Why that may not be done; empty if it may. */
export function forbidden(right: Right): string {
  const now = session.value;
  if (ended.value) return 'The session has ended: sign in again.';
  if (!now || now.may.includes(right)) return '';
  if (!now.accessControl) return 'This address is open to other machines and nobody signs in, so nothing can be changed here.';
  return now.principal ? `Your role does not allow this: it needs ${roleOf[right]}.` : `Sign in first: this needs ${roleOf[right]}.`;
}

/** Whether that is shown. What somebody had before them when the session ended stays there. */
export function may(right: Right): boolean {
  return ended.value ? ended.value.may.includes(right) : forbidden(right) === '';
}

/** Whether somebody has to sign in before anything can be seen. Who was at work keeps the page, and what is written in it. */
export const closed = computed(() => {
  const now = session.value;
  return now !== null && now.accessControl && !now.principal && !now.may.includes('read') && !ended.value;
});

effect(() => {
  const [now, before] = [session.value, last.peek()];
  if (now?.principal && before?.over && before.name !== now.principal.name) {
    // Another person sees nothing of it, whatever is not saved.
    leaving.ask = null;
    window.location.reload();
  } else if (now?.principal) {
    last.value = { name: now.principal.name, may: now.may, over: 0 };
    if (before?.over) untracked(goOn);
  } else if (now && before && !before.over) last.value = { ...before, over: Date.now() };
});

/** The same person is there again: all goes on where the page stands. */
function goOn(): void {
  signsIn.value = false;
  returned.value += 1;
  for (const line of lines.peek().values()) if (line.state === 'refused') line.now?.();
}
effect(() => void (halted.value = ended.value !== null));

refused.subscribe((times) => {
  const now = session.peek();
  if (times > 0 && (now === null || now.principal)) void look();
});

// Who signs in at the provider does so in a tab of its own, which tells the others; and a tab that is seen again looks by itself.
const tabs = new BroadcastChannel('streamview.session');
tabs.addEventListener('message', () => ended.peek() && void look());
for (const seen of ['visibilitychange', 'focus']) window.addEventListener(seen, () => !document.hidden && ended.peek() && void look(), true);

/** Tells the other tabs of this browser that somebody is signed in. */
export function tellTabs(): void {
  if (session.peek()?.principal) tabs.postMessage('signed in');
}
