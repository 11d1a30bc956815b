"use strict";
{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

  // Browsers may deny storage to a page opened from a file.
  const storedTheme = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };
  const storeTheme = (theme) => {
    try {
      localStorage.setItem("theme", theme);
    } catch {
      return;
    }
  };

  const button = document.getElementById("theme");
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  const updateButton = () => {
    button.textContent = isDark() ? "Light theme" : "Dark theme";
  };
  if (storedTheme()) root.dataset.theme = storedTheme();
  updateButton();
  button.hidden = false;
  dark.addEventListener("change", updateButton);
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    storeTheme(root.dataset.theme);
    updateButton();
  });

  for (const film of document.querySelectorAll(".film")) {
    const [source, image, button] = film.querySelectorAll("source, img, button");
    const still = source.srcset;
    const moving = image.src;
    let isPlaying = !reducedMotion.matches;
    // The button replaces the media query.
    source.remove();
    const show = () => {
      image.src = isPlaying ? moving : still;
      button.textContent = isPlaying ? "Pause" : "Play";
    };
    show();
    button.hidden = false;
    button.addEventListener("click", () => {
      isPlaying = !isPlaying;
      show();
    });
  }
}
