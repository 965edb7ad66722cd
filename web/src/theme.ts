// Light, dark, or as the system has it.
import { effect, signal } from '@preact/signals';
import { kept } from './kept';

export const theme = kept('theme', 'system');

/** Raised whenever colours have changed: a canvas has to be drawn again. */
export const repaint = signal(0);

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  repaint.value = repaint.peek() + 1;
});
window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => (repaint.value += 1));
