/* A picture opens in full size over the page; with the keyboard too, and without this script as a plain link. */
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const dialog = document.createElement("dialog");
  dialog.className = "zoomed";
  dialog.addEventListener("click", () => dialog.close());
  document.body.append(dialog);
  for (const image of document.querySelectorAll("article.bd-article img:not(#explorer img)")) {
    if (image.closest("a, .tiles")) continue;
    const link = Object.assign(document.createElement("a"), { href: image.src, title: "Open in full size" });
    image.replaceWith(link);
    link.append(image);
    link.addEventListener("click", (event) => {
      event.preventDefault();
      dialog.replaceChildren(image.cloneNode());
      dialog.showModal();
    });
  }
});
