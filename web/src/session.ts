// Who looks at this: what the API says of it, signing in and out, and what somebody may.
import { computed, signal } from '@preact/signals';
import { ask, refused } from './api';

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

export async function look(): Promise<void> {
  try {
    session.value = (await ask<Session>('/session')).data;
  } catch {
    session.value = null;
  }
}

/** What a button needs. */
export type Right = 'read' | 'define' | 'runStreams' | 'operate' | 'decide' | 'administer';

const roleOf: Record<Right, string> = {
  read: 'reader', define: 'developer', runStreams: 'developer or operator', operate: 'operator', decide: 'operator', administer: 'admin',
};

/** Why that may not be done; empty if it may. */
export function forbidden(right: Right): string {
  const now = session.value;
  if (!now || now.may.includes(right)) return '';
  if (!now.accessControl) return 'This address is open to other machines and nobody signs in, so nothing can be changed here.';
  return now.principal ? `Your role does not allow this: it needs ${roleOf[right]}.` : `Sign in first: this needs ${roleOf[right]}.`;
}

export function may(right: Right): boolean {
  return forbidden(right) === '';
}

/** Whether somebody has to sign in before anything can be seen. */
export const closed = computed(() => {
  const now = session.value;
  return now !== null && now.accessControl && !now.principal && !now.may.includes('read');
});

/** The session ended while somebody was at work. */
export const ended = computed(() => refused.value > 0 && session.value?.accessControl === true && session.value.principal === null);

refused.subscribe((times) => {
  if (times > 0) void look();
});
