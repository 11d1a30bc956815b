"use strict";
{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // A page that was opened from a file may not be allowed to remember anything.
  const remembered = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };
  const remember = (theme) => {
    try {
      localStorage.setItem("theme", theme);
    } catch {
      return;
    }
  };

  const button = document.getElementById("theme");
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  const tell = () => button.setAttribute("aria-pressed", String(isDark()));
  if (remembered()) root.dataset.theme = remembered();
  tell();
  button.hidden = false;
  dark.addEventListener("change", tell);
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    tell();
  });

  for (const film of document.querySelectorAll(".film")) {
    const [source, image, button] = film.querySelectorAll("source, img, button");
    const still = source.srcset;
    const moving = image.src;
    let plays = !calm.matches;
    // From here on the button decides.
    source.remove();
    const show = () => {
      image.src = plays ? moving : still;
      button.textContent = plays ? "Pause" : "Play";
    };
    show();
    button.hidden = false;
    button.addEventListener("click", () => {
      plays = !plays;
      show();
    });
  }
}
